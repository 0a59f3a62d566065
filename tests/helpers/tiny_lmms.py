"""Builders of tiny random LMMs of every family, from transformers' own configurations.

Tests import them as `from tiny_lmms import tiny_lmm, FAMILIES` (pytest puts this folder on the
path).
"""

import numpy as np
import torch
import transformers as hf
from flmm import FrozenLMM, Sample, TokenizedText
from flmm.adapters import build_lmm
from flmm.adapters.authors.hpt import HptVision
from flmm.adapters.authors.joined import JoinedConfig, JoinedLMM
from flmm.adapters.authors.mgm_vision import MiniGeminiSizes, MiniGeminiVision, WindowAttention
from PIL import Image
from timm.models.convnext import ConvNeXt
from torch import nn

IMAGE_ID = 50
TEXT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "eos_token_id": 2,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}
GROUPED = {"num_attention_heads": 6, "num_key_value_heads": 2}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def square(side: int) -> dict:
    return {"height": side, "width": side}


def llava():
    vision = {"model_type": "clip_vision_model", **TOWER, "image_size": 56, "patch_size": 7}
    text = {"model_type": "llama", **TEXT, **HEADS}
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_ID)
    return hf.LlavaForConditionalGeneration(config), hf.CLIPImageProcessorPil(
        size={"shortest_edge": 56}
    )


def llava_next(text_model: str = "mistral", heads: dict = GROUPED):
    vision = {"model_type": "clip_vision_model", **TOWER, "image_size": 28, "patch_size": 7}
    text = {"model_type": text_model, **TEXT, **heads, "head_dim": 4}
    config = hf.LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=PINPOINTS,
    )
    processor = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=square(28), image_grid_pinpoints=PINPOINTS
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def siglip(side: int, patch: int) -> dict:
    return {"model_type": "siglip_vision_model", **TOWER, "image_size": side, "patch_size": patch}


def deepseek_vl():
    text = {"model_type": "llama", **TEXT, **HEADS}
    config = hf.DeepseekVLConfig(
        vision_config=siglip(96, 8), text_config=text, image_token_id=IMAGE_ID
    )
    return hf.DeepseekVLForConditionalGeneration(config), hf.DeepseekVLImageProcessorPil(
        size=square(96), **HALF
    )


def deepseek_vl_hybrid(**siglip_options):
    text = {"model_type": "llama", **TEXT, **HEADS}
    sam = {
        "model_type": "sam_vision_model",
        **TOWER,
        "image_size": 128,
        "patch_size": 16,
        "window_size": 4,
        "global_attn_indexes": [0],
        "output_channels": 8,
    }
    config = hf.DeepseekVLHybridConfig(
        vision_config={**siglip(32, 8), **siglip_options},
        text_config=text,
        high_res_vision_config=sam,
        image_token_id=IMAGE_ID,
    )
    processor = hf.DeepseekVLHybridImageProcessorPil(
        size=square(32), high_res_size=square(128), **HALF
    )
    return hf.DeepseekVLHybridForConditionalGeneration(config), processor


def qwen2_5_vl():
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": TEXT["hidden_size"],
        "window_size": 28,
        "fullatt_block_indexes": [1],
        "patch_size": 7,
    }
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}
    text = {**TEXT, **GROUPED, "rope_parameters": rope}
    config = hf.Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_ID,
        video_token_id=51,
        vision_start_token_id=52,
    )
    size = {"shortest_edge": 14 * 14 * 4, "longest_edge": 14 * 14 * 64}
    return hf.Qwen2_5_VLForConditionalGeneration(config), hf.Qwen2VLImageProcessorPil(
        size=size, patch_size=7
    )


def llava_onevision():
    vision = {**siglip(28, 7), "vision_use_head": False}
    text = {"model_type": "qwen2", **TEXT, **GROUPED}
    config = hf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        video_token_index=51,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_2",
    )
    processor = hf.LlavaOnevisionImageProcessorPil(
        size=square(28), image_grid_pinpoints=PINPOINTS, **HALF
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl():
    vision = {**TOWER, "image_size": [28, 28], "patch_size": [7, 7]}
    text = {"model_type": "qwen2", **TEXT, **GROUPED}
    config = hf.InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE_ID, image_seq_length=4
    )
    processor = hf.GotOcr2ImageProcessorPil(size=square(28), min_patches=1, max_patches=6, **HALF)
    return hf.InternVLForConditionalGeneration(config), processor


def llama(heads: dict = HEADS):
    return hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, **heads))


def two_layers(width: int) -> nn.Sequential:
    wide = TEXT["hidden_size"]
    return nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, wide))


def hpt(kind: str = "clip"):
    options = {**TOWER, "image_size": 56, "patch_size": 7}
    if kind == "clip":
        tower = hf.CLIPVisionModel(hf.CLIPVisionConfig(**options))
    else:
        tower = hf.SiglipVisionModel(hf.SiglipVisionConfig(**options, vision_use_head=False))
    causal = llama(HEADS if kind == "clip" else GROUPED)
    vision = HptVision(tower, two_layers(TOWER["hidden_size"]))
    config = JoinedConfig("hpt", causal.config, tower.config, IMAGE_ID)
    return JoinedLMM(causal, vision, config), hf.CLIPImageProcessorPil()


def mgm(kind: str = "mgm", *, hd: bool = False):
    sizes = MiniGeminiSizes(28, 7, 128, tiles=2 if hd else 1, whole=hd)
    options = {**TOWER, "image_size": 28, "patch_size": 7}
    tower = hf.CLIPVisionModel(hf.CLIPVisionConfig(**options))
    if kind == "mgm":
        causal = llama()
    else:
        text = {**TEXT, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16}
        causal = hf.GemmaForCausalLM(hf.GemmaConfig(**text))
    vision = MiniGeminiVision(
        tower=tower,
        fine=ConvNeXt(depths=(1, 1, 1, 1), dims=(6, 8, 10, 12), num_classes=0),
        mining=WindowAttention(TOWER["hidden_size"], 36),
        projector=two_layers(TOWER["hidden_size"]),
        sizes=sizes,
        scale=1.0 if kind == "mgm" else TEXT["hidden_size"] ** 0.5,
    )
    config = JoinedConfig(kind, causal.config, sizes, IMAGE_ID)
    return JoinedLMM(causal, vision, config), hf.CLIPImageProcessorPil()


FAMILIES = {
    "llava": llava,
    "llava_next_mistral": llava_next,
    "llava_next_vicuna": lambda: llava_next("llama", HEADS),
    "deepseek_vl": deepseek_vl,
    "deepseek_vl_hybrid": deepseek_vl_hybrid,
    "qwen2_5_vl": qwen2_5_vl,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "hpt": hpt,
    "hpt15": lambda: hpt("siglip"),
    "mgm": mgm,
    "mgm_gemma": lambda: mgm("mgm_gemma"),
    "mgm_hd": lambda: mgm(hd=True),
}


def tiny_lmm(name: str) -> FrozenLMM:
    torch.manual_seed(5)
    return build_lmm(*FAMILIES[name]())


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise with structure, so that every patch is another one."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (max(height // 6, 1), max(width // 6, 1), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def sample(lmm: FrozenLMM, image: Image.Image, *, phrases: int = 2, seed: int = 0) -> Sample:
    """A prompt with one image token, and `phrases` phrases of one to three tokens with a word
    between them."""
    generator = torch.Generator().manual_seed(seed)
    ids = [1, 3, IMAGE_ID, 4]
    owners = [-1] * len(ids)
    for k in range(phrases):
        length = 1 + (k + seed) % 3
        ids += [*torch.randint(5, 40, (length,), generator=generator).tolist(), 7]
        owners += [k] * length + [-1]
    return Sample(
        lmm.family.prepare(image), TokenizedText(torch.tensor(ids), torch.tensor(owners), 4)
    )

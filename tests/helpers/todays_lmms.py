"""Builders of tiny random LMMs of today's families, their tokenizers and their own processors.

A tokenizer of characters knows the marks of its family, so that a text that differs by a line end
has other ids.
"""

import string

import pytest
import torch
import transformers as hf
from flmm import FrozenLMM, PromptStyle
from flmm.adapters import build_lmm
from tiny_lmms import GROUPED, HALF, TEXT, TOWER, siglip, square
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

IMAGE_ID = 50
WORDS = {**TEXT, "vocab_size": 140, "num_hidden_layers": 4}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}
CHARACTERS = "\n :.," + string.ascii_lowercase + string.digits[:8]


def characters(*marks: str, **extra: str) -> PreTrainedTokenizerFast:
    """Characters from id 3 on, and marks from `IMAGE_ID` on, the first of which is the image's.

    Args:
        extra: names that a processor looks for, such as boi_token.
    """
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {character: 3 + i for i, character in enumerate(CHARACTERS)}
    # No number is free: tokens that a processor adds come after all of these.
    vocabulary |= {f"<filler_{i}>": i for i in range(len(vocabulary), IMAGE_ID)}
    vocabulary |= {mark: IMAGE_ID + i for i, mark in enumerate(marks)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens=extra,
    )
    made.add_special_tokens({"additional_special_tokens": list(marks)})
    return made


def qwen3_vl():
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": WORDS["hidden_size"],
        "patch_size": 8,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    config = hf.Qwen3VLConfig(
        vision_config=vision,
        text_config={**WORDS, **GROUPED, "head_dim": 4, "rope_parameters": MROPE},
        image_token_id=IMAGE_ID,
        video_token_id=51,
        vision_start_token_id=52,
        vision_end_token_id=53,
    )
    size = {"shortest_edge": 16 * 16 * 4, "longest_edge": 16 * 16 * 64}
    processor = hf.Qwen2VLImageProcessorPil(size=size, patch_size=8)
    return hf.Qwen3VLForConditionalGeneration(config), processor


def qwen3_vl_processor(image_processor):
    tokenizer = characters(
        "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>"
    )
    return hf.Qwen3VLProcessor(image_processor, tokenizer, hf.Qwen3VLVideoProcessor())


def glm4v():
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": WORDS["hidden_size"],
        "patch_size": 7,
        "image_size": 56,
    }
    rope = {**MROPE, "partial_rotary_factor": 1.0}
    config = hf.Glm4vConfig(
        vision_config=vision,
        text_config={**WORDS, **GROUPED, "rope_parameters": rope},
        image_token_id=IMAGE_ID,
        image_start_token_id=51,
        image_end_token_id=52,
        video_token_id=53,
        video_start_token_id=54,
        video_end_token_id=55,
    )
    size = {"shortest_edge": 14 * 14 * 8, "longest_edge": 14 * 14 * 128}
    processor = hf.Glm4vImageProcessorPil(size=size, patch_size=7)
    return hf.Glm4vForConditionalGeneration(config), processor


def glm4v_processor(image_processor):
    tokenizer = characters(
        "<|image|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|video|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    return hf.Glm4vProcessor(image_processor, tokenizer, hf.Glm4vVideoProcessor())


def gemma3():
    text = {
        **WORDS,
        **GROUPED,
        "head_dim": 4,
        "sliding_window": 16,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "query_pre_attn_scalar": 4,
    }
    config = hf.Gemma3Config(
        vision_config={**siglip(56, 7), "vision_use_head": False},
        text_config=text,
        mm_tokens_per_image=16,
        image_token_index=IMAGE_ID,
        boi_token_index=51,
        eoi_token_index=52,
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # else 0
    return model, hf.Gemma3ImageProcessorPil(size=square(56), **HALF)


def gemma3_processor(image_processor):
    tokenizer = characters(
        "<image_soft_token>",
        "<start_of_image>",
        "<end_of_image>",
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    return hf.Gemma3Processor(image_processor, tokenizer, image_seq_length=16)


def gemma4():
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "patch_size": 4,
        "position_embedding_size": 256,
    }
    text = {
        **WORDS,
        **GROUPED,
        "head_dim": 4,
        "global_head_dim": 4,
        "sliding_window": 16,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "use_bidirectional_attention": "vision",
        "vocab_size_per_layer_input": WORDS["vocab_size"],
        "hidden_size_per_layer_input": 4,
    }
    config = hf.Gemma4Config(
        vision_config=vision,
        text_config=text,
        audio_config=None,
        image_token_id=IMAGE_ID,
        boi_token_id=51,
        eoi_token_id=52,
        video_token_id=53,
        audio_token_id=54,
        boa_token_id=55,
        eoa_token_index=56,
    )
    processor = hf.Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70)
    return hf.Gemma4ForConditionalGeneration(config), processor


def gemma4_processor(image_processor):
    tokenizer = characters(
        "<|image|>",
        "<|image>",
        "<image|>",
        "<|video|>",
        "<|audio|>",
        "<|audio>",
        "<audio|>",
        audio_token="<|audio|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        image_token="<|image|>",
        boi_token="<|image>",
        eoi_token="<image|>",
    )
    return hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(), image_processor, tokenizer, hf.Gemma4VideoProcessor()
    )


def smolvlm():
    vision = {**TOWER, "image_size": 32, "patch_size": 4, "model_type": "smolvlm_vision"}
    text = {"model_type": "llama", **WORDS, **GROUPED}
    config = hf.SmolVLMConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE_ID, scale_factor=2
    )
    processor = hf.SmolVLMImageProcessorPil(
        size={"longest_edge": 96}, max_image_size={"longest_edge": 32}, **HALF
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


def smolvlm_marks() -> list[str]:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    return ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows]


def smolvlm_processor(image_processor):
    # SmolVLM's own processor writes the same, and wants a package for names of numbers.
    return hf.Idefics3Processor(image_processor, characters(*smolvlm_marks()), image_seq_len=16)


def mistral3():
    vision = {**TOWER, "image_size": 112, "patch_size": 7, "model_type": "pixtral", "head_dim": 8}
    text = {"model_type": "mistral", **WORDS, **GROUPED, "head_dim": 4}
    config = hf.Mistral3Config(
        vision_config=vision, text_config=text, image_token_index=IMAGE_ID, spatial_merge_size=2
    )
    processor = hf.PixtralImageProcessorPil(
        size={"longest_edge": 98}, patch_size={"height": 7, "width": 7}
    )
    return hf.Mistral3ForConditionalGeneration(config), processor


def mistral3_processor(image_processor):
    tokenizer = characters("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
    return hf.PixtralProcessor(image_processor, tokenizer, patch_size=7, spatial_merge_size=2)


def pixtral():
    vision = {**TOWER, "image_size": 112, "patch_size": 14, "model_type": "pixtral", "head_dim": 8}
    text = {"model_type": "mistral", **WORDS, **GROUPED, "head_dim": 4}
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.PixtralImageProcessorPil(
        size={"longest_edge": 98}, patch_size={"height": 14, "width": 14}
    )
    return hf.LlavaForConditionalGeneration(config), processor


def pixtral_processor(image_processor):
    tokenizer = characters("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
    return hf.PixtralProcessor(image_processor, tokenizer, patch_size=14, spatial_merge_size=1)


def aya_vision():
    vision = {**siglip(28, 7), "vision_use_head": False}
    text = {
        "model_type": "cohere2",
        **WORDS,
        **GROUPED,
        "sliding_window": 16,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    }
    config = hf.AyaVisionConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_ID, downsample_factor=2
    )
    processor = hf.GotOcr2ImageProcessorPil(size=square(28), min_patches=1, max_patches=6, **HALF)
    return hf.AyaVisionForConditionalGeneration(config), processor


def aya_vision_processor(image_processor):
    tokenizer = characters(
        "<|IMG_PATCH|>", "<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "TILE_GLOBAL", "TILE"
    )
    return hf.AyaVisionProcessor(
        image_processor, tokenizer, patch_size=7, img_size=28, downsample_factor=2
    )


def internvl_qwen3():
    vision = {**TOWER, "image_size": [28, 28], "patch_size": [7, 7]}
    text = {"model_type": "qwen3", **WORDS, **GROUPED, "head_dim": 4}
    config = hf.InternVLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE_ID, image_seq_length=4
    )
    processor = hf.GotOcr2ImageProcessorPil(size=square(28), min_patches=1, max_patches=6, **HALF)
    return hf.InternVLForConditionalGeneration(config), processor


def internvl_processor(image_processor):
    tokenizer = characters(
        "<IMG_CONTEXT>",
        "<img>",
        "</img>",
        "<video>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    return hf.InternVLProcessor(
        image_processor, tokenizer, hf.InternVLVideoProcessor(), image_seq_length=4
    )


def qwen3_5():
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": WORDS["hidden_size"],
        "patch_size": 8,
        "num_position_embeddings": 64,
    }
    text = {
        **WORDS,
        **GROUPED,
        "num_hidden_layers": 8,
        "head_dim": 8,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {**MROPE, "partial_rotary_factor": 0.5},
    }
    config = hf.Qwen3_5Config(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_ID,
        video_token_id=51,
        vision_start_token_id=52,
        vision_end_token_id=53,
    )
    size = {"shortest_edge": 16 * 16 * 4, "longest_edge": 16 * 16 * 64}
    processor = hf.Qwen2VLImageProcessorPil(size=size, patch_size=8)
    return hf.Qwen3_5ForConditionalGeneration(config), processor


def paligemma():
    text = {
        "model_type": "gemma2",
        **WORDS,
        **GROUPED,
        "head_dim": 4,
        "sliding_window": 24,
        "attn_logit_softcapping": 0.5,
        "query_pre_attn_scalar": 1,
    }
    config = hf.PaliGemmaConfig(
        vision_config={**siglip(56, 14), "vision_use_head": False},
        text_config=text,
        image_token_index=IMAGE_ID,
        projection_dim=WORDS["hidden_size"],
    )
    processor = hf.SiglipImageProcessorPil(size=square(56), **HALF)
    processor.image_seq_length = 16
    return hf.PaliGemmaForConditionalGeneration(config), processor


def paligemma_processor(image_processor):
    tokenizer = characters("<image>", "<bos>", image_token="<image>")
    tokenizer.bos_token = "<bos>"
    return hf.PaliGemmaProcessor(image_processor, tokenizer)


def molmo2():
    if not hasattr(hf, "Molmo2Config"):
        pytest.skip(f"transformers {hf.__version__} has no Molmo 2")
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "image_size": [56, 56],
        "patch_size": 7,
        "num_position_embeddings": 64,
    }
    adapter = {
        "vision_feature_layer": [1, 2],
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 24,
        "text_hidden_size": WORDS["hidden_size"],
    }
    marks = {
        "image_patch_id": IMAGE_ID,
        "image_start_token_id": 52,
        "low_res_image_start_token_id": 53,
        "image_end_token_id": 54,
        "frame_start_token_id": 55,
        "frame_end_token_id": 56,
    }
    text = {**WORDS, **GROUPED, "head_dim": 4, "additional_vocab_size": 8}
    config = hf.Molmo2Config(
        vision_config=vision, adapter_config=adapter, text_config=text, **marks
    )
    processor = hf.Molmo2ImageProcessor(
        size=square(56), patch_size=7, max_crops=4, overlap_margins=[1, 1], **HALF
    )
    return hf.Molmo2ForConditionalGeneration(config), processor


def molmo2_processor(image_processor):
    tokenizer = characters(
        "<im_patch>",
        "<im_col>",
        "<im_start>",
        "<low_res_im_start>",
        "<im_end>",
        "<frame_start>",
        "<frame_end>",
        "<im_low>",
        "<|image|>",
        "<|video|>",
    )
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()  # adds no first token
    return hf.Molmo2Processor(
        image_processor, hf.Molmo2VideoProcessor(), tokenizer, use_single_crop_col_tokens=False
    )


def llama4():
    vision = {
        "hidden_size": 16,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "vision_output_dim": 24,
        "projector_input_dim": 24,
        "projector_output_dim": 24,
    }
    text = {
        **WORDS,
        **GROUPED,
        "head_dim": 4,
        "intermediate_size_mlp": 32,
        "num_local_experts": 2,
        "attention_chunk_size": 64,
        "pad_token_id": 2,
    }
    config = hf.Llama4Config(vision_config=vision, text_config=text, image_token_index=IMAGE_ID)
    processor = hf.Llama4ImageProcessor(size=square(28), max_patches=6, **HALF)
    return hf.Llama4ForConditionalGeneration(config), processor


def llama4_processor(image_processor):
    tokenizer = characters(
        "<|patch|>",
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    )
    return hf.Llama4Processor(image_processor, tokenizer, patch_size=7)


def todays_lmm(name: str) -> FrozenLMM:
    """The tiny LMM of a family, with a tokenizer that knows its marks."""
    torch.manual_seed(5)
    model, image_processor = TODAY[name][0]()
    return build_lmm(model, image_processor, own_processor(name, image_processor).tokenizer)


def own_processor(name: str, image_processor):
    """The processor that transformers has for this family, which makes text and pixels."""
    return TODAY[name][1](image_processor)


def processor_text(name: str, style: PromptStyle, question: str) -> str:
    """The prompt as the processor of a family wants it."""
    stands_for_image = TODAY[name][2]
    if name == "paligemma":  # its processor adds what comes after the image and after the question
        return stands_for_image + question
    asked = style.question(question).replace(style.image_token, stands_for_image)
    return style.template.replace("{input}", asked)


# name -> builder of (model, image processor), of its own processor, and what that processor wants
# in place of an image in a text.
TODAY = {
    "aya_vision": (aya_vision, aya_vision_processor, "<image>"),
    "gemma3": (gemma3, gemma3_processor, "<start_of_image>"),
    "gemma4": (gemma4, gemma4_processor, "<|image|>"),
    "glm4v": (glm4v, glm4v_processor, "<|begin_of_image|><|image|><|end_of_image|>"),
    "internvl_qwen3": (internvl_qwen3, internvl_processor, "<IMG_CONTEXT>"),
    "llama4": (llama4, llama4_processor, "<|image|>"),
    "mistral3": (mistral3, mistral3_processor, "[IMG]"),
    "molmo2": (molmo2, molmo2_processor, "<|image|>"),
    "paligemma": (paligemma, paligemma_processor, "<image>"),
    "pixtral": (pixtral, pixtral_processor, "[IMG]"),
    "qwen3_5": (qwen3_5, qwen3_vl_processor, "<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_vl": (qwen3_vl, qwen3_vl_processor, "<|vision_start|><|image_pad|><|vision_end|>"),
    "smolvlm": (smolvlm, smolvlm_processor, "<image>"),
}

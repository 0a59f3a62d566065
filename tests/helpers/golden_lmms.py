"""LMMs and samples of the golden flmm cases; every size comes from their sidecars.

Tests import them as `from golden_lmms import golden_lmm` (pytest puts this folder on the path).
"""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from clim_models import UNetHead
from device import DEVICE
from flmm import (
    FrozenLMM,
    GroundedLMM,
    ImageFrame,
    PreparedImage,
    Sample,
    SamRefiner,
    TokenizedText,
    load_sam,
)
from flmm.adapters import build_lmm
from flmm.adapters.authors import deepseek, hpt, mgm
from flmm.adapters.authors.deepseek_names import (
    deepseek_config,
    deepseek_to_transformers,
    sam_sizes,
    siglip_sizes,
)
from flmm.adapters.authors.joined import add_image_token
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_lmms import HALF
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridForConditionalGeneration,
    LlavaNextImageProcessorPil,
    SiglipImageProcessorPil,
)

GOLDEN = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parents[1] / "golden")) / "flmm"
# Every LMM of F-LMM that this set has a case of.
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/forward.json"))
ORIGINAL_IMAGE_ID = -200  # of HPT and Mini-Gemini
_READ: dict[tuple[Path, torch.dtype], FrozenLMM] = {}


def cases_with(array: str) -> list[str]:
    """The LMMs whose case has an array of this name."""
    return [name for name in CASES if array in np.load(GOLDEN / name / "forward.npz").files]


def cases_about(*fields: str) -> list[str]:
    """The LMMs whose sidecar has these fields, one inside the other."""
    found = []
    for name in CASES:
        content = json.loads((GOLDEN / name / "forward.json").read_text())
        for field in fields:
            content = content.get(field, {})
        if content:
            found.append(name)
    return found


def close_masks(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-4 as a whole; norms over few values amplify the difference of single pixels."""
    torch.testing.assert_close(
        found, expected, atol=2e-3 * max(expected.std().item(), 1), rtol=1e-3
    )
    assert (found - expected).norm() < 1e-4 * expected.norm()


def frame_of(record: dict) -> ImageFrame:
    """An `ImageFrame` from a sidecar's entry of a sample (meta_data and image_size_wh)."""
    meta = record["meta_data"]
    content, padded = (
        (meta[k]["height"], meta[k]["width"]) for k in ("image_shape", "padded_shape")
    )
    before = meta["padding"]
    width, height = record["image_size_wh"]
    return ImageFrame(
        (height, width), content, padded, before["before_height"], before["before_width"]
    )


def sample_of(case, name: str) -> Sample:
    """A golden sample with the very pixels and ids that the original got."""
    record = case.meta["samples"][name]
    # Samples come from a reader, so they are on the CPU; the LMM takes them to its device.
    ids, phrases = case.tensor(f"{name}__input_ids").cpu(), case.tensor(f"{name}__mask_ids").cpu()
    ids = torch.where(ids == ORIGINAL_IMAGE_ID, image_id(case), ids)
    prompt = int((case.tensor(f"{name}__labels") == -100).sum())
    return Sample(
        PreparedImage(inputs_of(case, name), frame_of(record)),
        TokenizedText(ids, phrases, prompt),
    )


def inputs_of(case, name: str) -> dict[str, torch.Tensor]:
    """The pixels of a sample.

    The cases of DeepSeek-VL 7B have one square in [0, 1], which its two towers normalise. Those of
    Mini-Gemini have the padded square, and a part of what is made of it.
    """
    if f"{name}__padded_image" in case.arrays:
        padded = Image.fromarray(case.arrays[f"{name}__padded_image"])
        return golden_lmm(case).family.prepare(padded).inputs
    whole = case.arrays.get(f"{name}__pixel_values")
    if whole is None:
        bytes_of = case.tensor(f"{name}__pixel_values_u8").cpu()
        if is_hybrid(case):
            return golden_lmm(case).family.prepare.views(bytes_of)
        return {"pixel_values": (bytes_of.float() / 255 - 0.5) / 0.5}
    pixels = torch.from_numpy(whole)
    if is_hybrid(case):
        return golden_lmm(case).family.prepare.views(pixels * 255)
    return {"pixel_values": pixels}


def is_hybrid(case) -> bool:
    """Whether the case is of a DeepSeek-VL with two towers."""
    path = case.folder / "lmm.json"
    if not path.exists():
        return False
    about = json.loads(path.read_text())
    return about["config"]["vision_config"]["cls"] == deepseek.TWO


def image_id(case) -> int:
    """The id of the image token that a tokenizer of the case gets; the originals use -200."""
    return add_image_token(tokenizer_of(case, "plain"))


def phrase_rows(case, name: str) -> torch.Tensor:
    """Positions of all phrase tokens in the merged sequence."""
    if f"{name}__phrase_rows" in case.arrays:
        return case.tensor(f"{name}__phrase_rows")
    return (case.tensor(f"{name}__merged_mask_ids") >= 0).nonzero().flatten()


def merge_of(case) -> str:
    """How the case merges tokens; the oldest ones do not say, and are means."""
    return case.meta.get("merge", "mean")


def precision_of(case) -> dict[str, float]:
    """How close maps must be: rounding is averaged by a mean of tokens, not by a maximum."""
    return {"atol": 1e-5 if merge_of(case) == "mean" else 2e-5, "rtol": 1e-4}


def first_of(case) -> str:
    """Name of the first sample: the one of the variants (merge, bfloat16)."""
    return min(case.meta["samples"])


def golden_lmm(case, dtype: torch.dtype = torch.float32) -> FrozenLMM:
    """The frozen LMM of the case in this folder."""
    if (case.folder / "hf").exists():
        return _from_hf(case, dtype).to(DEVICE)
    if (case.folder / "lmm.json").exists():
        return _deepseek(case, dtype).to(DEVICE)
    return _from_authors(case, dtype).to(DEVICE)


def golden_grounded(
    case, dtype: torch.dtype = torch.float32, *, merge: str | None = None
) -> GroundedLMM:
    """LMM, mask head and SAM of a case, with the trained weights in the layout of a released
    checkpoint."""
    lmm = golden_lmm(case, dtype)
    unet = case.meta["unet"]
    head = UNetHead(
        lmm.map_channels,
        base=unet["base_channels"],
        normalize_input=unet["normalize_input"],
        upsample_input=unet["upsample_input"],
    )
    model = GroundedLMM(lmm, head, golden_sam(case), merge=merge or merge_of(case)).eval()
    model.load_heads(released(case))
    return model.to(DEVICE)


def golden_steps(case) -> tuple[dict, list[dict]]:
    """AdamW's settings (as `OptimConfig` names them), and the total loss before each step and after
    the last."""
    trajectory = case.meta["training"]["trajectory"]
    facts = re.search(
        r"AdamW\(lr=([\d.e-]+), betas=\(([\d.]+), ?([\d.]+)\), weight_decay=([\d.e-]+)\), clip_grad_norm ([\d.]+)",
        trajectory["optimizer"],
    )
    lr, *betas, decay, largest = map(float, facts.groups())
    return {
        "lr": lr,
        "betas": tuple(betas),
        "weight_decay": decay,
        "clip_norm": largest,
    }, trajectory["steps"]


def tokenizer_of(case, name: str):
    """One of the golden tokenizers, "llava", "deepseek" or "plain"."""
    return AutoTokenizer.from_pretrained(case.folder.parent / "data" / f"tokenizer_{name}")


def golden_sam(case) -> SamRefiner:
    weights = case.folder.parent / "sam" / "sam_tiny.safetensors"
    return SamRefiner(load_sam(weights, decoder_heads=decoder_heads(case))).to(DEVICE)


def decoder_heads(case) -> int:
    """Heads of the golden SAM's decoder, which its weights do not tell."""
    return json.loads((case.folder.parent / "sam" / "sam_tiny.json").read_text())["config"][
        "dec_num_heads"
    ]


def released(case) -> dict[str, torch.Tensor]:
    """Every trained tensor of a case under its released name; SAM's stand in its own file for most
    cases."""
    if (case.folder / "trainable.safetensors").exists():
        return load_file(case.folder / "trainable.safetensors")
    sam = load_file(case.folder.parent / "sam" / "sam_tiny.safetensors")
    own = {
        f"sam.model.{k}": v
        for k, v in sam.items()
        if k.startswith(("prompt_encoder.", "mask_decoder."))
    }
    return {**own, **load_file(case.folder / "trainable_no_sam.safetensors")}


def picture_of(case, name: str) -> Image.Image:
    """The original image of a sample."""
    return Image.open(
        case.folder.parent / "data" / "images" / case.meta["samples"][name]["file_name"]
    )


def _from_hf(case, dtype: torch.dtype) -> FrozenLMM:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            case.folder / "hf", dtype=dtype, output_loading_info=True
        )
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    side = model.config.vision_config.image_size
    if model.config.model_type == "llava":
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    else:
        processor = LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=case.meta["grid_pinpoints"],
        )
    return build_lmm(model, processor)


def authors_folder(case, folder: Path) -> Path:
    """Write the folder that the authors of HPT or Mini-Gemini would release for this case."""
    if (case.folder / "projector.safetensors").exists():
        _write_hpt(case, folder)
    else:
        _write_mgm(case, folder)
    return folder


def in_parts(folder: Path) -> None:
    """Split a folder's model.safetensors into two files with an index, as large models have it.

    They also have numbers that older versions of transformers stored.
    """
    tensors = load_file(folder / "model.safetensors")
    layers = [name for name in tensors if name.endswith("layers.0.self_attn.q_proj.weight")]
    for name in layers:
        tensors[name.replace("q_proj.weight", "rotary_emb.inv_freq")] = torch.ones(2)
    (folder / "model.safetensors").unlink()
    where = {}
    for number in (1, 2):
        file = f"model-0000{number}-of-00002.safetensors"
        names = sorted(tensors)[number - 1 :: 2]
        save_file({k: tensors[k] for k in names}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_hpt(case, folder: Path) -> None:
    clip = case.meta["vision"] == "clip"
    configs = {
        "llm": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        | llm_facts(case)
        | case.meta["llm_config"],
        "visual_encoder": {"model_type": f"{case.meta['vision']}_vision_model"}
        | under(case, "vision_")
        | case.meta["vision_config"],
        "projector": {"model_type": "projector"} | case.meta["projector_config"],
    }
    for part, config in configs.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        shutil.copyfile(case.folder / f"{part}.safetensors", folder / part / "model.safetensors")
    tokenizer_of(case, "plain").save_pretrained(folder / "llm")
    processor = CLIPImageProcessorPil() if clip else SiglipImageProcessorPil()
    processor.save_pretrained(folder / "visual_encoder")


def llm_facts(case) -> dict:
    """What a sidecar says about the language model outside of its configuration."""
    named = {name: case.meta[name] for name in ("rope_theta", "rms_norm_eps") if name in case.meta}
    return named | under(case, "llm_")


def under(case, prefix: str) -> dict:
    """The activation and the epsilon of a part, which some sidecars name next to its
    configuration."""
    fields = ("hidden_act", "layer_norm_eps")
    return {name: case.meta[prefix + name] for name in fields if prefix + name in case.meta}


def _write_mgm(case, folder: Path) -> None:
    tower = folder / "zoo" / "clip"
    tower.mkdir(parents=True)
    config = {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **under(case, "clip_")}
    (tower / "config.json").write_text(json.dumps(config | case.meta["clip_config"]))
    CLIPImageProcessorPil().save_pretrained(tower)
    own = {
        "model_type": case.meta.get("model_type", "mgm"),
        **llm_facts(case),
        **case.meta["llm_config"],
        **case.meta["mgm_config"],
        "mm_vision_tower": "zoo/clip",
        "mm_vision_tower_aux": "zoo/convnext",
        **{key: case.meta[key] for key in ("image_grid", "image_global")},
    }
    (folder / "config.json").write_text(json.dumps(own))
    shutil.copyfile(case.folder / "lmm.safetensors", folder / "model.safetensors")
    tokenizer_of(case, "plain").save_pretrained(folder)


def _from_authors(case, dtype: torch.dtype) -> FrozenLMM:
    """The LMM of a case, read once from the files of its authors."""
    made = _READ.get((case.folder, dtype))
    if made is None:
        with TemporaryDirectory() as folder:
            made = read_authors(case, authors_folder(case, Path(folder) / "lmm"), dtype)
        _READ[case.folder, dtype] = made
    return made


def read_authors(case, folder: Path, dtype: torch.dtype = torch.float32) -> FrozenLMM:
    """Read a folder of `authors_folder` by the authors' reader."""
    if (folder / "projector").exists():
        side = case.meta["image_size"]
        parts = hpt.read_authors_model(folder, {"model_type": "hpt"}, dtype=dtype, side=side)
        parts[0].model.vision.layer = case.meta["visual_select_layer"]
    else:
        raw = json.loads((folder / "config.json").read_text())
        parts = mgm.read_authors_model(folder, raw, dtype=dtype)
    return build_lmm(*parts)


def _deepseek(case, dtype: torch.dtype) -> FrozenLMM:
    """DeepSeek-VL from its authors' layout: of the 1.3B kind, or of the 7B kind with two towers."""
    about = json.loads((case.folder / "lmm.json").read_text())
    registered, vision = about["registered_sizes"], about["config"]["vision_config"]
    tensors = deepseek_to_transformers(load_file(case.folder / "lmm.safetensors"))
    siglip = siglip_sizes(tensors, heads=registered["siglip"]["heads"])
    image_token = int(case.tensor(f"{first_of(case)}__input_ids").mode().values)
    options = {"siglip": siglip, "image_token_id": image_token}
    language = about["config"]["language_config"]
    if vision["cls"] == deepseek.ONE:
        config = deepseek_config(language, **options)
        model = DeepseekVLForConditionalGeneration(config).to(dtype)
    else:
        layers = registered["sam"].get("global_attn_indexes", ())  # the weights tell them, too
        config = deepseek_config(language, sam=sam_sizes(tensors, global_layers=layers), **options)
        model = DeepseekVLHybridForConditionalGeneration(config).to(dtype)
    model.load_state_dict(tensors)
    # The towers of the 7B model have a mean and a deviation each, in their configuration.
    pixels = {name: list(value) for name, value in HALF.items()}
    processor = deepseek._image_processor(pixels, config, vision["params"], source=case.folder)
    return build_lmm(model, processor)

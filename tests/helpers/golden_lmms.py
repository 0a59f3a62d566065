"""LMMs and samples of the golden flmm cases; every size comes from their sidecars.

Tests import them as `from golden_lmms import golden_lmm` (pytest puts this folder on the path).
"""

import json
import re
import warnings

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
from flmm.adapters.authors.deepseek_names import deepseek_config, deepseek_to_transformers
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessorPil,
    LlavaNextImageProcessorPil,
)


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
    if f"{name}__pixel_values" in case.arrays:
        pixels = case.tensor(f"{name}__pixel_values").cpu()
    else:
        pixels = (case.tensor(f"{name}__pixel_values_u8").cpu().float() / 255 - 0.5) / 0.5
    # Samples come from a reader, so they are on the CPU; the LMM takes them to its device.
    ids, phrases = case.tensor(f"{name}__input_ids").cpu(), case.tensor(f"{name}__mask_ids").cpu()
    prompt = int((case.tensor(f"{name}__labels") == -100).sum())
    return Sample(
        PreparedImage({"pixel_values": pixels}, frame_of(record)),
        TokenizedText(ids, phrases, prompt),
    )


def first_of(case) -> str:
    """Name of the first sample: the one of the variants (merge, bfloat16)."""
    return min(case.meta["samples"])


def golden_lmm(case, dtype: torch.dtype = torch.float32) -> FrozenLMM:
    """The frozen LMM of the case in this folder."""
    if (case.folder / "hf").exists():
        return _from_hf(case, dtype).to(DEVICE)
    return _deepseek(case, dtype).to(DEVICE)


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
    model = GroundedLMM(lmm, head, golden_sam(case), merge=merge or case.meta["merge"]).eval()
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


def _deepseek(case, dtype: torch.dtype) -> FrozenLMM:
    lmm = json.loads((case.folder / "lmm.json").read_text())
    tower = lmm["registered_sizes"]["siglip"]
    sizes = {
        k: tower[k] for k in ("image_size", "patch_size", "width", "layers", "heads", "mlp_ratio")
    }
    image_token = int(case.tensor(f"{first_of(case)}__input_ids").mode().values)
    config = deepseek_config(
        lmm["config"]["language_config"], tower=sizes, image_token_id=image_token
    )
    model = DeepseekVLForConditionalGeneration(config).to(dtype)
    model.load_state_dict(deepseek_to_transformers(load_file(case.folder / "lmm.safetensors")))
    half = (0.5, 0.5, 0.5)
    side = tower["image_size"]
    processor = DeepseekVLImageProcessorPil(
        size={"height": side, "width": side}, image_mean=half, image_std=half
    )
    return build_lmm(model, processor)

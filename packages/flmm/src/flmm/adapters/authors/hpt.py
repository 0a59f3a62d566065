"""HPT-Air and HPT-Air 1.5 from their authors' files: language model, vision tower and projector,
each in a folder of its own.

The language model is one of transformers, the tower its CLIP or SigLIP. F-LMM shows the tower
larger images than it was trained with, so its table of positions is resized.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flmm.adapters.authors.joined import JoinedConfig, JoinedLMM, add_image_token
from flmm.adapters.authors.weights import (
    COMPUTED,
    authors_folder,
    build_pretrained,
    check_tensors,
    read_weights,
    under,
)
from flmm.hub import read_or_explain

PARTS = ("llm", "visual_encoder", "projector")
# Side in pixels of the square that F-LMM shows each kind of tower: HPT-Air, HPT-Air 1.5.
SIDES = {"clip_vision_model": 392, "siglip_vision_model": 448}
SELECTED_LAYER = -2  # the hidden state that the projector takes
_FIX = "download all files of llm/, visual_encoder/ and projector/ again"


def is_hpt(name: str | Path, *, local_files_only: bool = False) -> bool:
    """Return whether a folder or hub id has the three folders of HPT."""
    if Path(name).is_dir():
        return all((Path(name) / part / "config.json").is_file() for part in PARTS)
    from huggingface_hub import file_exists, try_to_load_from_cache

    if local_files_only:
        return isinstance(try_to_load_from_cache(str(name), "projector/config.json"), str)
    return file_exists(str(name), "projector/config.json")


def read_authors_model(
    name: str | Path,
    raw: dict[str, Any],
    *,
    dtype: torch.dtype,
    side: int | None = None,
    local_files_only: bool = False,
) -> tuple[Any, Any, Any]:
    """Read (model, image processor, tokenizer) from the authors' folder or hub id.

    Args:
        raw: {"model_type": ...}; the rest is in config.json of each part.
        side: of the square image in pixels; None: what F-LMM takes for this tower (`SIDES`).
        local_files_only: take a model of the hub from the cache.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a part has other contents, or its weights are not complete.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    patterns = [f"{part}/*" for part in PARTS]
    folder = authors_folder(name, local_files_only=local_files_only, patterns=patterns)
    local = {"local_files_only": True}
    tower = read_tower(folder / "visual_encoder", side=side, dtype=dtype)
    projector = read_projector(folder / "projector", dtype=dtype)
    causal = _language_model(folder / "llm", dtype)

    tokenizer = read_or_explain(
        folder / "llm", "the tokenizer", AutoTokenizer.from_pretrained, **local
    )
    processor = read_or_explain(
        folder / "visual_encoder",
        "the image processor",
        AutoImageProcessor.from_pretrained,
        **local,
    )
    config = JoinedConfig(
        raw["model_type"],
        causal.config,
        tower.config,
        add_image_token(tokenizer),
        name_or_path=str(name),
    )
    return JoinedLMM(causal, HptVision(tower, projector), config), processor, tokenizer


class HptVision(nn.Module):
    """A tower of transformers and a projector: pixels (B, 3, T, T) to features (B, t, D).

    Args:
        layer: hidden state of the tower that is projected; -2 is before its last layer.
    """

    def __init__(self, tower: Any, projector: nn.Module, *, layer: int = SELECTED_LAYER):
        super().__init__()
        self.tower = tower
        self.projector = projector
        self.layer = layer

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the features of the patches, row by row."""
        states = self.tower(pixel_values, output_hidden_states=True).hidden_states
        patches = (self.tower.config.image_size // self.tower.config.patch_size) ** 2
        # CLIP's class token comes first, SigLIP has none.
        features: Tensor = self.projector(states[self.layer][:, -patches:])
        return features


def read_tower(folder: Path, *, side: int | None, dtype: torch.dtype) -> Any:
    """Read the vision tower, with its table of positions resized to images of this side."""
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    raw = _config(folder)
    kind = raw.pop("model_type", None)
    if kind not in SIDES:
        raise ValueError(
            f"the vision tower in {folder} is of type {kind!r}: HPT has one of {', '.join(SIDES)}"
        )
    clip = kind == "clip_vision_model"
    config: Any = (
        CLIPVisionConfig(**raw) if clip else SiglipVisionConfig(**raw, vision_use_head=False)
    )
    config.image_size = side or SIDES[kind]

    tensors = under(read_weights(folder), "vision_model.")
    # SigLIP's pooling head is in the file, and never used.
    tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    positions = "embeddings.position_embedding.weight"
    if positions in tensors:
        tensors[positions] = resized_positions(
            tensors[positions], config.image_size // config.patch_size, class_rows=int(clip)
        )
    model = CLIPVisionModel if clip else SiglipVisionModel
    message = {"source": folder, "what": "HPT's vision tower", "fix": _FIX}
    return build_pretrained(model, config, tensors, dtype=dtype, **message)


def resized_positions(table: Tensor, side: int, *, class_rows: int) -> Tensor:
    """Resize a table of positions (class_rows + n * n, C) to a grid of side * side.

    Bicubic, without antialiasing. Every row is rounded to float16, also those of the class token,
    which the published heads have seen.
    """
    rows = table[class_rows:].float()
    old = round(len(rows) ** 0.5)
    grid = rows.view(1, old, old, -1).permute(0, 3, 1, 2)  # (1, C, n, n)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    flat = resized.permute(0, 2, 3, 1).flatten(0, 2)  # (side * side, C)
    return torch.cat([table[:class_rows].float(), flat]).half().to(table.dtype)


def read_projector(folder: Path, *, dtype: torch.dtype) -> nn.Module:
    """Read the projector: linear layers with an activation between two of them."""
    from transformers.activations import ACT2FN

    about = {"depth": 2, "hidden_act": "gelu", "bias": True, **_config(folder)}
    wide = about["llm_hidden_size"]
    layers: list[nn.Module] = [nn.Linear(about["visual_hidden_size"], wide, bias=about["bias"])]
    for _ in range(1, about["depth"]):
        layers += [ACT2FN[about["hidden_act"]], nn.Linear(wide, wide, bias=about["bias"])]
    projector = nn.Sequential(*layers)

    tensors = under(read_weights(folder), "model.")
    check_tensors(projector, tensors, source=folder, what="HPT's projector", fix=_FIX)
    projector.load_state_dict(tensors)
    return projector.to(dtype)


def _language_model(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    model, loaded = read_or_explain(
        folder,
        "the weights",
        AutoModelForCausalLM.from_pretrained,
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
        local_files_only=True,
    )
    missing = sorted(loaded["missing_keys"])
    unexpected = sorted(k for k in loaded["unexpected_keys"] if not k.endswith(COMPUTED))
    if missing or unexpected:
        raise ValueError(
            f"the weights in {folder} are not those of its config.json: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}; {_FIX}"
        )
    return model


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no config.json in {folder}: {_FIX}")
    about: dict[str, Any] = json.loads(path.read_text())
    return about

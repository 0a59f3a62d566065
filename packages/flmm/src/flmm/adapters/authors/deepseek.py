"""DeepSeek-VL 1.3B from its authors' files, which transformers does not read.

Configuration, weights and image processor of deepseek-ai/deepseek-vl-1.3b-chat go into
transformers' own classes, exactly. The 7B model has a second tower whose names are not known here;
only its conversion to transformers' layout loads.
"""

import json
from pathlib import Path
from typing import Any

import torch
from clim_models.checkpoints import read_checkpoint
from torch import Tensor

from flmm.adapters.authors.deepseek_names import deepseek_config, deepseek_to_transformers
from flmm.hub import read_or_explain

MODEL_TYPE = "multi_modality"
PLACEHOLDER = "<image_placeholder>"
# Their configuration only names the tower. Sizes are those of timm's vit_large_patch16_siglip_384.
TOWERS: dict[str, dict[str, int]] = {
    "siglip_large_patch16_384": {
        "image_size": 384,
        "patch_size": 16,
        "width": 1024,
        "layers": 24,
        "heads": 16,
        "mlp_ratio": 4,
    }
}
LEAST_PX = 14  # smallest edge of the resized image, unless preprocessor_config.json has another
_CONVERTED = (
    "use deepseek-community/deepseek-vl-1.3b-chat or -7b-chat, the same weights in transformers' "
    "layout"
)
_FILES = ("model.safetensors", "pytorch_model.bin")


def read_authors_model(
    name: str | Path, raw: dict[str, Any], *, dtype: torch.dtype, local_files_only: bool = False
) -> tuple[Any, Any, Any]:
    """Read (model, image processor, tokenizer) from a folder or hub id in the authors' layout.

    Args:
        raw: its config.json.
        local_files_only: take a model of the hub from the cache.

    Raises:
        FileNotFoundError: a file is missing. ValueError: it is the 7B model, or a file is not what
            it should be.
    """
    tower = _tower(raw, name)
    folder = _folder(name, local_files_only)
    tokenizer = _tokenizer(folder)
    token = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    if token is None or token == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer in {folder} has no {PLACEHOLDER}: {_CONVERTED}")
    config = deepseek_config(raw["language_config"], tower=tower, image_token_id=token)
    processor = _image_processor(folder, tower)
    return _model(folder, config, dtype), processor, tokenizer


def _tower(raw: dict[str, Any], name: str | Path) -> dict[str, int]:
    vision = raw.get("vision_config", {})
    tower = TOWERS.get(vision.get("params", {}).get("model_name"))
    if tower is None or vision.get("cls") != "CLIPVisionTower" or "language_config" not in raw:
        raise ValueError(
            f"{name} is in the layout of DeepSeek-VL's authors, with a vision tower "
            f"{vision.get('cls')!r} that flmm reads in transformers' layout only: {_CONVERTED}"
        )
    return tower


def _folder(name: str | Path, local_files_only: bool) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.bin"]
    options = {"allow_patterns": patterns, "local_files_only": local_files_only}
    return Path(read_or_explain(str(name), "the files", snapshot_download, **options))


def _model(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    from transformers import DeepseekVLForConditionalGeneration

    tensors = deepseek_to_transformers(_weights(folder))
    with torch.device("meta"):
        own = DeepseekVLForConditionalGeneration(config).state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if missing or unexpected or wrong:
        raise ValueError(
            f"the weights in {folder} are not those of DeepSeek-VL 1.3B: missing "
            f"{missing[:3]}, unexpected {unexpected[:3]}, of another shape {wrong[:3]}; "
            f"{_CONVERTED}"
        )
    return DeepseekVLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, attn_implementation="sdpa"
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of one file, or of several with an index."""
    for name in _FILES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            tensors: dict[str, Tensor] = {}
            for part in sorted(set(json.loads(index.read_text())["weight_map"].values())):
                tensors |= read_checkpoint(folder / part)
            return tensors
        if (folder / name).is_file():
            return dict(read_checkpoint(folder / name))
    raise FileNotFoundError(f"no weights in {folder}: download {' or '.join(_FILES)} (all parts)")


def _image_processor(folder: Path, tower: dict[str, int]) -> Any:
    from transformers import DeepseekVLImageProcessorPil

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {folder}: download it with the model")
    about = json.loads(path.read_text())
    side = tower["image_size"]
    if about.get("image_size", side) != side or not {"image_mean", "image_std"} <= about.keys():
        raise ValueError(f"{path} does not fit this model's {side} px tower: {_CONVERTED}")
    return DeepseekVLImageProcessorPil(
        size={"height": side, "width": side},
        min_size=about.get("min_size", LEAST_PX),
        image_mean=about["image_mean"],
        image_std=about["image_std"],
    )


def _tokenizer(folder: Path) -> Any:
    """Read tokenizer.json, and add the BOS that Llama's class puts before a text by default."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(f"no tokenizer.json in {folder}: download it with the model")
    tokenizer = read_or_explain(
        folder, "the tokenizer", PreTrainedTokenizerFast.from_pretrained, local_files_only=True
    )
    path = folder / "tokenizer_config.json"
    about = json.loads(path.read_text()) if path.is_file() else {}
    of_llama = str(about.get("tokenizer_class", "")).startswith("LlamaTokenizer")
    if of_llama and about.get("add_bos_token", True):
        bos = str(tokenizer.bos_token)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos}:0 $A:0",
            pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.bos_token_id)],
        )
    return tokenizer

"""Files of weights as authors release them: one file or several, and strict loading."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from clim_models.checkpoints import read_checkpoint
from torch import Tensor, nn

from flmm.hub import read_or_explain, without_bars

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Numbers that older versions of transformers stored, and newer ones compute.
COMPUTED = (".rotary_emb.inv_freq", "embeddings.position_ids")


def authors_folder(
    name: str | Path,
    *,
    local_files_only: bool = False,
    patterns: Sequence[str] = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt"),
) -> Path:
    """Return a model's folder; one of the hub is downloaded, or taken from the cache.

    Raises:
        FileNotFoundError: it cannot be had.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    options = {"allow_patterns": list(patterns), "local_files_only": local_files_only}
    return Path(read_or_explain(str(name), "the files", snapshot_download, **options))


def read_weights(folder: Path, files: Sequence[str] = WEIGHT_FILES) -> dict[str, Tensor]:
    """Read all tensors of one file, or of several with an index.

    Args:
        files: names to look for, the preferred one first; NAME.index.json lists the parts of NAME.

    Raises:
        FileNotFoundError: there is none of them, or a part is missing.
    """
    for name in files:
        index = folder / f"{name}.index.json"
        if index.is_file():
            tensors: dict[str, Tensor] = {}
            for part in sorted(set(json.loads(index.read_text())["weight_map"].values())):
                tensors |= read_checkpoint(folder / part)
            return _parameters(tensors)
        if (folder / name).is_file():
            return _parameters(read_checkpoint(folder / name))
    raise FileNotFoundError(f"no weights in {folder}: download {' or '.join(files)} (all parts)")


def _parameters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith(COMPUTED)}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def check_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path, what: str, fix: str
) -> None:
    """Compare names and shapes of tensors with those of a module.

    Args:
        source, what: the source of the tensors, and the part that they belong to, for the message.
        fix: advice for the user.

    Raises:
        ValueError: some are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if missing or unexpected or wrong:
        raise ValueError(
            f"the weights in {source} are not those of {what}: missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}, of another shape {wrong[:3]}; {fix}"
        )


def build_pretrained(
    kind: Any,
    config: Any,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    **message: Any,
) -> Any:
    """Build a model of transformers with exactly these weights, in evaluation mode.

    Args:
        kind: a model class of transformers.
        message: `source`, `what` and `fix` of `check_tensors`.

    Raises:
        ValueError: as `check_tensors`.
    """
    with torch.device("meta"):
        empty = kind(config)
    check_tensors(empty, tensors, **message)
    options = {"dtype": dtype, "attn_implementation": "sdpa"}
    with without_bars():
        return kind.from_pretrained(None, config=config, state_dict=dict(tensors), **options)

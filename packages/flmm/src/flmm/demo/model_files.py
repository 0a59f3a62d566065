"""The demo LMM that ships with flmm: its weights file, and the Hugging Face folder made of it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from clim_models.checkpoints import read_metadata, read_tensors, save_tensors

from flmm.demo.lmm import build_demo_llava, save_folder, word_tokenizer

WEIGHTS = Path(__file__).parent / "weights" / "demo_lmm.safetensors"
COMMAND = "hatch run pretrain-demo-lmm"


def write_demo_model(
    folder: str | Path, *, weights: str | Path = WEIGHTS
) -> tuple[Path, dict[str, Any]]:
    """Write the pretrained demo LMM as a Hugging Face folder; return it and the account of its
    training.

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: the weights are of another model.
    """
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer)
    about = load_weights(model, weights)
    return save_folder(model, tokenizer, folder), about


def load_weights(
    model: Any, path: str | Path = WEIGHTS, *, what: str = "demo LMM", command: str = COMMAND
) -> dict[str, Any]:
    """Load weights into a demo LLaVA (or another model: `what`, made by `command`), strictly.

    Returns the file's account of their training. Raises FileNotFoundError and ValueError as
    `write_demo_model`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}: make it with `{command}`, or reinstall flmm")
    metadata = read_shipped(path, read_metadata, command=command)
    found = read_shipped(path, read_tensors, command=command)
    tensors = {name: value.float() for name, value in found.items()}
    own = model.state_dict()
    wrong = sorted(own.keys() ^ tensors.keys()) or [
        k for k in own if own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise ValueError(
            f"{path} is of another {what} ({wrong[:3]} differ): make it anew with `{command}`"
        )
    model.load_state_dict(tensors)
    return json.loads(metadata.get("about", "{}"))


def save_weights(model: Any, path: str | Path, about: Mapping[str, Any]) -> Path:
    """Write all weights as float16 with an account of their training."""
    path = Path(path)
    tensors = {
        k: v.detach().to("cpu", torch.float16).contiguous().clone()
        for k, v in model.state_dict().items()
    }
    save_tensors(tensors, path, {"format": "pt", "about": json.dumps(about)})
    return path


def read_shipped(path: Path, read: Callable[[Path], Any], *, command: str) -> Any:
    """Read a file of weights that came with flmm.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return read(path)
    except ValueError as error:
        reason = str(error).rpartition(";")[0]
        raise ValueError(
            f"{reason}: in a clone, pip install --force-reinstall --no-deps ./packages/flmm, or "
            f"make it anew with `{command}`"
        ) from error

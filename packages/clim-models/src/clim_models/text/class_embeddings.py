"""Embeddings of class names, averaged over prompts and kept in a cache."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clim_models.checkpoints.fingerprint import hash_weights
from clim_models.text.prompts import VILD_TEMPLATES, class_prompts


@torch.no_grad()
def embed_classes(
    model: nn.Module,
    names: Sequence[str],
    *,
    templates: Sequence[str] = VILD_TEMPLATES,
    batch_size: int = 512,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """One unit row per class: mean over its prompts of unit text features, normalised again.

    Args:
        model: a RegionModel (needs ``encode_text``, ``tokenizer``, ``clip``).
        names: K class names.
        templates: patterns with ``{}`` and, where wanted, ``{article}``.
        batch_size: prompts per forward pass of the text tower.
        cache: a folder. The result is stored there under a hash of the text tower's weights,
            templates and names and read back next time; None computes always.
        progress: called with (prompts done, prompts in all) after each forward pass.

    Returns (K, C) float32 on the model's device. Raises ValueError for no names or bad templates.
    """
    if isinstance(names, str) or not names:
        raise ValueError(
            f"names={names!r} is not a list of class names: pass at least one, as a list"
        )
    if isinstance(templates, str) or not templates:
        raise ValueError(
            f"templates={templates!r} is not a list of patterns: pass at least one, as a tuple"
        )
    prompts = [class_prompts(name, templates) for name in names]  # K lists of P
    device = next(model.parameters()).device
    stored = (
        None
        if cache is None
        else Path(cache) / f"classes-{embedding_key(model, names, templates)[:24]}.safetensors"
    )
    if stored is not None and stored.exists():
        with safe_open(stored, framework="pt") as file:
            return file.get_tensor("embeddings").to(device)

    training = model.training
    model.eval()
    flat = [prompt for group in prompts for prompt in group]
    # Sums per class are kept instead of every prompt's feature: 1203 classes x 63 prompts would be
    # 76 k rows.
    sums: Tensor | None = None
    for start in range(0, len(flat), batch_size):
        tokens = model.tokenizer(flat[start : start + batch_size]).to(device)
        features = model.encode_text(tokens, normalize=True).float()  # (b, C)
        owner = torch.arange(start, start + len(features), device=device) // len(templates)
        if sums is None:
            sums = features.new_zeros(len(names), features.shape[1])
        sums.index_add_(0, owner, features)
        if progress is not None:
            progress(start + len(features), len(flat))
    model.train(training)
    embeddings = F.normalize(sums, dim=-1)  # the mean's direction: its length does not matter
    if stored is not None:
        _store(stored, embeddings, names, templates)
    return embeddings


def embedding_key(model: nn.Module, names: Sequence[str], templates: Sequence[str]) -> str:
    """SHA-256 (hex) of the text tower's weights and the order, names and templates that embeddings
    depend on.

    The image tower and the logit scale are left out, so an image-only fine-tuning keeps its class
    embeddings. Raises ValueError when a weight is empty.
    """
    words = json.dumps([list(names), list(templates), hash_weights(text_weights(model))])
    return hashlib.sha256(words.encode()).hexdigest()


def text_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a RegionModel's text tower: all but the image tower and the logit scale."""
    return {
        key: value
        for key, value in model.clip.state_dict().items()
        if not key.startswith("visual.") and key not in ("logit_scale", "logit_bias")
    }


def _store(path: Path, embeddings: Tensor, names: Sequence[str], templates: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    about = {"names": json.dumps(list(names)), "templates": json.dumps(list(templates))}
    save_file({"embeddings": embeddings.cpu().contiguous()}, unfinished, metadata=about)
    os.replace(unfinished, path)  # readers see the whole file or none

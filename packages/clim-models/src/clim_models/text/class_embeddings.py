"""Embeddings of class names, averaged over prompts, with a cache.

Letters: K classes, P prompts of a class, C embedding, b prompts of one forward pass.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clim_models.checkpoints.atomic import write_whole
from clim_models.checkpoints.fingerprint import hash_weights
from clim_models.text.prompts import VILD_TEMPLATES, class_prompts
from clim_models.towers.evaluation import evaluation_mode

logger = logging.getLogger(__name__)


class TextModel(Protocol):
    """The interface of a RegionModel for `embed_classes`."""

    clip: nn.Module
    training: bool

    @property
    def tokenizer(self) -> Callable[[list[str]], Tensor]: ...

    def encode_text(self, token_ids: Tensor, normalize: bool = True) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> object: ...


@torch.no_grad()
def embed_classes(
    model: TextModel,
    names: Sequence[str],
    *,
    templates: Sequence[str] = VILD_TEMPLATES,
    batch_size: int = 512,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Embed class names: one unit row per class.

    A row is the mean of the unit text features of the class's prompts, normalised again.

    Args:
        model: a RegionModel.
        names: K class names.
        templates: patterns with ``{}`` and, optionally, ``{article}``.
        batch_size: prompts per forward pass of the text tower.
        cache: a folder. The result is stored there under the hash of `embedding_key`, and read back
            next time. A file that is damaged is computed
            again, and one that cannot be written costs time only. None always computes.
        progress: called with (prompts done, all prompts) after each forward pass.

    Returns:
        (K, C) float32 on the model's device.

    Raises:
        ValueError: no names, or invalid templates.
    """
    _check_list("names", names, "class names")
    _check_list("templates", templates, "patterns")
    prompts = [class_prompts(name, templates) for name in names]  # K lists of P
    device = next(iter(model.parameters())).device

    stored = None
    if cache is not None:
        key = embedding_key(model, names, templates)
        stored = Path(cache) / f"classes-{key[:24]}.safetensors"
        if (known := _read_stored(stored, len(names))) is not None:
            return known.to(device)

    with evaluation_mode(model):
        sums = _sums_of_features(model, prompts, batch_size, progress)

    # Only the direction of the mean matters, so the sum does as well.
    embeddings = F.normalize(sums, dim=-1)
    if stored is not None:
        _store(stored, embeddings, names, templates)
    return embeddings


def embedding_key(model: TextModel, names: Sequence[str], templates: Sequence[str]) -> str:
    """Hash everything that class embeddings depend on: SHA-256, hex.

    These are the text tower's weights and layers, the tokens of the first class, and the prompts of
    all classes in their order. The image tower and the logit scale do not count, so an image-only
    fine-tuning keeps its class embeddings.

    Raises:
        ValueError: an empty weight.
    """
    prompts = [class_prompts(name, templates) for name in names]
    tokens = model.tokenizer(prompts[0]).tolist()
    facts = [prompts, tokens, text_layers(model), hash_weights(text_weights(model))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def text_layers(model: TextModel) -> list[str]:
    """Return the class, the sizes and the heads of each module of the text tower.

    Models of equal weights can differ in these: `ViT-B-32` and `ViT-B-32-quickgelu` have other
    activations.
    """
    found = []
    for name, module in model.clip.named_modules():
        if name.split(".")[0] != "visual":
            heads = getattr(module, "num_heads", None)
            own = type(module).__name__
            found.append(f"{name} {own} {module.extra_repr()} {heads}")
    # These are attributes of the tower, or of the model where the tower is part of it.
    owner = getattr(model.clip, "text", model.clip)
    return [*found, *(str(getattr(owner, name, None)) for name in ("pool_type", "text_pool_type"))]


def text_weights(model: TextModel) -> dict[str, Tensor]:
    """Return the state dict of the text tower: all but the image tower and the logit scale."""
    weights: dict[str, Tensor] = model.clip.state_dict()
    return {
        key: value
        for key, value in weights.items()
        if not key.startswith("visual.") and key not in ("logit_scale", "logit_bias")
    }


def _sums_of_features(
    model: TextModel,
    prompts: Sequence[Sequence[str]],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """Sum the unit features of each class's prompts: (K, C) float32.

    Only sums stay in memory: 1203 classes x 63 prompts would be 76 k rows.
    """
    flat: list[str] = []
    for group in prompts:
        flat += group

    per_class = len(prompts[0])
    sums = torch.empty(0)
    for start in range(0, len(flat), batch_size):
        # The model moves them: on the CPU it can drop the padding first.
        tokens = model.tokenizer(flat[start : start + batch_size])
        features = model.encode_text(tokens, normalize=True).float()  # (b, C)
        if start == 0:
            sums = features.new_zeros(len(prompts), features.shape[1])

        stop = start + len(features)
        owner = torch.arange(start, stop, device=features.device) // per_class
        sums.index_add_(0, owner, features)
        if progress is not None:
            progress(stop, len(flat))
    return sums


def _read_stored(path: Path, classes: int) -> Tensor | None:
    """Read (K, C) rows from the cache; None when there is no file, or a damaged one."""
    if not path.exists():
        return None
    try:
        rows: Tensor = load_file(path)["embeddings"]
        lengths = torch.linalg.vector_norm(rows, dim=-1)
        # After a loss of power a file may have its size, and zeros in it.
        if lengths.shape == (classes,) and bool((lengths - 1).abs().lt(1e-3).all()):
            return rows
        reason = "its rows are no class embeddings"
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error)
    logger.warning("%s is damaged (%s): it is computed again", path, reason)
    return None


def _store(path: Path, embeddings: Tensor, names: Sequence[str], templates: Sequence[str]) -> None:
    about = {"names": json.dumps(list(names)), "templates": json.dumps(list(templates))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path, sync=False) as draft:
            save_file({"embeddings": embeddings.cpu().contiguous()}, draft, metadata=about)
    except OSError as error:
        logger.warning("%s cannot be written (%s): it is computed again next time", path, error)


def _check_list(option: str, value: Sequence[str], what: str) -> None:
    if isinstance(value, str) or not value:
        raise ValueError(
            f"{option}={value!r} is not a list of {what}: pass at least one, as a list"
        )

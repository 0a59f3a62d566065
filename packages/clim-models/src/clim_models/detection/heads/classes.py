"""The classes of a detector from a vocabulary."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.text.vocabulary import PictureModel, Vocabulary, embed_vocabulary


def embed_class_set(
    model: PictureModel,
    vocabulary: Vocabulary | Sequence[str] | Mapping[str, Any],
    *,
    base: Iterable[str] = (),
    **options: Any,
) -> ClassSet:
    """Embed a vocabulary for a detector.

    Args:
        model: a RegionModel with its text tower.
        vocabulary: names, a `Vocabulary`, or what `Vocabulary.of` takes. Phrases under `not`
            compete in the softmax and are never returned.
        base: names of the classes with annotations. Names are compared letter by letter.
        options: `templates`, `read_example` and `cache` of `embed_vocabulary`.

    Raises:
        ValueError: an empty or doubled name, or a base class that is not in the vocabulary.
    """
    embedded = embed_vocabulary(model, vocabulary, **options)
    names = embedded.vocabulary.names
    wanted = set(base)
    unknown = sorted(wanted - set(names))
    if unknown:
        raise ValueError(
            f"base names {unknown[:8]} are not in the vocabulary: "
            "spell them as in the vocabulary, or leave them out"
        )
    labels = [label for label, name in enumerate(names) if name in wanted]
    return ClassSet(names, torch.cat([embedded.embeddings, embedded.rejects]), labels)

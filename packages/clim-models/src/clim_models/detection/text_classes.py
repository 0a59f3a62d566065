"""A detector whose classes are text embeddings: new names need new embeddings and no training."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from clim_models.detection.heads.classes import embed_class_set
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.region_model import RegionModel
from clim_models.text.vocabulary import Vocabulary


class TextClassDetector(nn.Module):
    """The classes of a detector, and the frozen text tower that embeds others.

    The text tower is no part of the module: it is neither trained nor in the state dict.

    Args:
        classes: names, unit embeddings, and the classes with boxes (`base`).
    """

    def __init__(self, classes: ClassSet):
        super().__init__()
        self.classes = classes
        self._text: tuple[RegionModel, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes; a label is an index into them."""
        return self.classes.names

    @property
    def text(self) -> RegionModel | None:
        """The model whose text tower embeds classes, if it was attached."""
        return self._text[0] if self._text else None

    def attach_text(self, model: RegionModel) -> None:
        """Give the detector the model whose text tower embedded its classes."""
        self._text = (model,)

    def with_classes(self, classes: ClassSet) -> Self:
        """Return a detector with the same weights, which are shared, and other classes."""
        classes = classes.to(self.classes.embeddings.device)
        with torch.device("meta"):
            same = self._alike(classes)
        for name, child in self.named_children():
            if child is not self.classes:
                setattr(same, name, child)
        same._text = self._text
        return same.train(self.training)

    @abstractmethod
    def _alike(self, classes: ClassSet) -> Self:
        """Build a detector with the same options, whose weights are replaced."""

    def with_vocabulary(
        self,
        vocabulary: Vocabulary | Sequence[str] | Mapping[str, Any],
        *,
        base: Iterable[str] | None = None,
        **options: Any,
    ) -> Self:
        """Return a detector with the same weights, which are shared, and another vocabulary.

        Args:
            vocabulary: names, a `Vocabulary`, or what `Vocabulary.of` takes.
            base: names of the classes that the detector was trained on. None takes those of this
                detector.
            options: `templates`, `read_example` and `cache` of `embed_vocabulary`.

        Raises:
            ValueError: no text tower, an empty or doubled name, or a base class that is not in the
                vocabulary.
        """
        if self.text is None:
            raise ValueError(
                "this detector has no text tower for other names: give it one with attach_text, or "
                "embeddings with with_classes"
            )
        if base is None:
            trained = {self.names[label] for label in self.classes.base}
            base = [name for name in Vocabulary.of(vocabulary).names if name in trained]
        model = self.text.to(self.classes.embeddings.device)
        return self.with_classes(embed_class_set(model, vocabulary, base=base, **options))

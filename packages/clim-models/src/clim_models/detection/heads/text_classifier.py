"""A classifier whose weights are text embeddings, so that its classes can be exchanged.

Letters: R boxes, K classes, M rejected phrases, C embedding.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BackgroundKind = Literal["fixed", "learned", "linear", "zero"]


class Background(nn.Module):
    """The embedding of the background: (C,).

    Kinds: "fixed" is an embedding that never changes, such as the text "background". "learned" is a
    parameter that starts from it, scaled to unit length. "linear" is the sum of two parameters
    (weight and bias of a layer that reads the constant 1), scaled to unit length. "zero" has the
    logit 0 for every box.

    Args:
        kind: see above.
        embed_dim: C.
        start: (C,) for "fixed" and "learned".

    Raises:
        ValueError: an unknown kind, or a start that is missing or has no use.
    """

    embedding: Tensor

    def __init__(self, kind: BackgroundKind, embed_dim: int, start: Tensor | None = None):
        super().__init__()
        if kind not in get_args(BackgroundKind):
            legal = ", ".join(get_args(BackgroundKind))
            raise ValueError(f"background={kind!r}; legal values are {legal}")
        needs_start = kind in ("fixed", "learned")
        if needs_start != (start is not None):
            verb = "needs" if needs_start else "has no use for"
            raise ValueError(f"a {kind} background {verb} an embedding to start from")

        self.kind: BackgroundKind = kind
        self.embed_dim = embed_dim
        if start is not None and kind == "learned":
            self.embedding = nn.Parameter(start.clone())
        elif start is not None:
            self.register_buffer("embedding", start.clone())
        elif kind == "zero":
            self.register_buffer("embedding", torch.zeros(embed_dim), persistent=False)
        else:
            self.layer = nn.Linear(1, embed_dim)
            nn.init.xavier_uniform_(self.layer.weight)
            nn.init.zeros_(self.layer.bias)

    def forward(self) -> Tensor:
        """Return the embedding (C,) float32; every kind but "fixed" and "zero" has unit length."""
        match self.kind:
            case "fixed":
                return self.embedding.float()
            case "learned":
                return F.normalize(self.embedding.float(), dim=0)
            case "linear":
                return F.normalize(self.layer.weight[:, 0].float() + self.layer.bias.float(), dim=0)
            case "zero":
                return self.embedding


class ClassSet(nn.Module):
    """The classes of a detector: names, embeddings, and which of them have annotations.

    Args:
        names: of the K classes, in the order of their labels.
        embeddings: (K + M, C) unit rows; the last M belong to phrases that compete and are never
            returned (`not` of a vocabulary).
        base: labels of the classes with annotations. All others count as novel.

    Attributes:
        embeddings: buffer (K + M, C).
        is_base: buffer, bool (K + M,).

    Raises:
        ValueError: doubled names, a class without embedding, or a label that does not exist.
    """

    embeddings: Tensor
    is_base: Tensor

    def __init__(self, names: Sequence[str], embeddings: Tensor, base: Iterable[int] = ()):
        super().__init__()
        self.names = tuple(names)
        self.base = tuple(sorted(set(base)))
        _check_names(self.names)
        _check_embeddings(self.names, embeddings)
        if self.base and not 0 <= self.base[0] <= self.base[-1] < len(self.names):
            raise ValueError(f"base={self.base}; pass labels from 0 to {len(self.names) - 1}")

        is_base = torch.zeros(len(embeddings), dtype=torch.bool)
        is_base[list(self.base)] = True
        self.register_buffer("embeddings", embeddings.float().clone())
        self.register_buffer("is_base", is_base.to(embeddings.device), persistent=False)

    @property
    def num_classes(self) -> int:
        """K, the number of classes that are returned."""
        return len(self.names)

    @property
    def num_columns(self) -> int:
        """K + M; also the label of the background in training."""
        return len(self.embeddings)

    def weights(self, background: float) -> Tensor:
        """Weight the columns of the training loss: 1 for base classes, 0 for all others.

        Args:
            background: weight of the background.

        Returns:
            (K + M + 1,), background last.

        Raises:
            ValueError: no base class.
        """
        if not self.base:
            raise ValueError(
                "no base class: a detector trains on annotated classes; name them with base=[...]"
            )
        last = self.embeddings.new_full((1,), background)
        return torch.cat([self.is_base.to(last), last])

    def without(self, labels: Iterable[int]) -> "ClassSet":
        """Return the classes but some, in their order; labels are counted anew."""
        dropped = set(labels)
        kept = [label for label in range(self.num_classes) if label not in dropped]
        rows = [*kept, *range(self.num_classes, self.num_columns)]
        base = [new for new, label in enumerate(kept) if label in self.base]
        return ClassSet([self.names[label] for label in kept], self.embeddings[rows], base)


class TextClassifier(nn.Module):
    """Temperature times the cosine of a feature with every class and with the background.

    Args:
        background: the embedding of the last column.
        temperature: start of the temperature.
        fixed_temperature: whether the temperature does not train.

    Attributes:
        temperature: scalar, a parameter or a buffer.
    """

    temperature: Tensor

    def __init__(
        self, background: Background, temperature: float = 50.0, *, fixed_temperature: bool = False
    ):
        super().__init__()
        self.background = background
        start = torch.tensor(float(temperature))
        if fixed_temperature:
            self.register_buffer("temperature", start)
        else:
            self.temperature = nn.Parameter(start)

    def forward(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Classify features of any length.

        Args:
            features: (R, C). One of zeros has the logit 0 everywhere.
            embeddings: (K, C), used as they are.

        Returns:
            Logits (R, K + 1), background last.
        """
        return self.temperature * self.cosines(features, embeddings)

    def cosines(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Compare features with classes and background: (R, C), (K, C) -> (R, K + 1)."""
        # A temperature of 50 makes the rounding of a 16-bit product visible in the scores.
        with torch.autocast(features.device.type, enabled=False):
            columns = torch.cat([embeddings.float(), self.background()[None]])
            return F.normalize(features.float(), dim=-1) @ columns.T


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"{twice[:8]} twice" if twice else "no name at all"
        raise ValueError(f"the classes have {what}: give every class a name of its own")


def _check_embeddings(names: Sequence[str], embeddings: Tensor) -> None:
    if embeddings.ndim != 2 or len(embeddings) < len(names):
        raise ValueError(
            f"embeddings of shape {tuple(embeddings.shape)} for {len(names)} classes: a category "
            f"without embedding ({names[-1]!r}); embed every class with embed_vocabulary"
        )
    empty = (~embeddings.any(dim=1) | ~embeddings.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        wrong = [names[i] if i < len(names) else f"reject {i - len(names)}" for i in empty[:8]]
        raise ValueError(
            f"classes {wrong} have no embedding (zeros or not finite); "
            "embed every class with embed_vocabulary"
        )

"""A vocabulary: phrases and example pictures of classes, and phrases that are not the class.

Letters: K classes, M rejected phrases, C embedding, N regions.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from clim_models.pooling import unit_length
from clim_models.text.class_embeddings import TextModel, embed_classes
from clim_models.text.prompts import VILD_TEMPLATES, spelling_key
from clim_models.towers.evaluation import evaluation_mode

FIELDS = ("phrases", "not", "examples")
# Sums of vectors stay far from the limits of float32.
LARGEST_WEIGHT = 1e6
# The label of a region whose best match is a phrase under `not`.
REJECTED = -1


class PictureModel(TextModel, Protocol):
    """The interface of a RegionModel for `embed_vocabulary`."""

    image_size: tuple[int, int]

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor: ...

    def normalize_pixels(self, pixels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class VocabularyClass:
    """One class.

    Attributes:
        name: its name in labels, tables and files.
        phrases: each phrase with its weight; a phrase becomes a vector through prompts.
        rejects: phrases that compete with the class and never win (`not` in the file).
        examples: each picture, by a name that `read_example` understands, with its weight.

    Raises:
        ValueError: an empty or damaged name, neither phrase nor example, or a weight that is not
            positive.
    """

    name: str
    phrases: Mapping[str, float]
    rejects: tuple[str, ...] = ()
    examples: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not spelling_key(self.name):
            raise ValueError(f"class name {self.name!r} is empty: give every class a name")
        if not self.phrases and not self.examples:
            raise ValueError(
                f"class {self.name!r} has neither phrases nor examples: "
                "add a phrase, or leave 'phrases' out to use the name"
            )
        _check_weights(self.name, "phrases", self.phrases)
        _check_weights(self.name, "examples", self.examples or {})
        _check_texts(self.name, "phrases", (self.name, *self.phrases))
        _check_texts(self.name, "not", self.rejects)


@dataclass(frozen=True)
class Vocabulary:
    """Classes in the order of their labels.

    Raises:
        ValueError: no class, two classes of one name, or a phrase that one class has and another
            rejects.
    """

    classes: tuple[VocabularyClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("the vocabulary is empty: name at least one class")

        owners: dict[str, str] = {}
        for one in self.classes:
            words = spelling_key(one.name)
            if words in owners:
                raise ValueError(
                    f"the vocabulary has {one.name!r} twice (as {owners[words]!r} and "
                    f"{one.name!r}): remove one, or merge their phrases into one class"
                )
            owners[words] = one.name
        self._check_rejects()

    @classmethod
    def of(cls, classes: "Vocabulary | Sequence[str] | Mapping[str, Any]") -> "Vocabulary":
        """Make a vocabulary of names, or of the contents of a vocabulary file.

        ```python
        Vocabulary.of(["cat", "red car"])
        Vocabulary.of({"cat": {"phrases": ["cat", "kitten"], "not": ["lynx"]}, "sofa": {}})
        ```

        Args:
            classes: a list of names, or for each name a mapping with any of `phrases` (a list, or a
                weight for each phrase; the name itself where missing), `not` (a list) and
                `examples` (a list of pictures, or a weight for each).

        Raises:
            ValueError: a string instead of a list, or wrong contents; the message says the fix.
        """
        if isinstance(classes, Vocabulary):
            return classes
        if isinstance(classes, str):
            raise ValueError(
                f"a vocabulary of one string, {classes!r}: pass a list, such as [{classes!r}]"
            )
        if not isinstance(classes, Sequence | Mapping):
            raise ValueError(f"a vocabulary of {classes!r}: write a list of names, or an object")
        if isinstance(classes, Mapping):
            return cls(tuple(_class_of(name, entry) for name, entry in classes.items()))
        return cls(tuple(_class_of(name, {}) for name in classes))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read a vocabulary file: JSON, see `of`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not JSON, a name twice, or wrong contents.
        """
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(f"no vocabulary at {file}; check the path")
        try:
            contents = json.loads(file.read_bytes(), object_pairs_hook=_without_doubles)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(
                f"{file} is not JSON ({error}): "
                'write {"cat": {"phrases": ["cat", "kitten"]}} or ["cat", "dog"]'
            ) from error
        return cls.of(contents)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes; a label is an index into them."""
        return tuple(one.name for one in self.classes)

    @property
    def rejects(self) -> tuple[str, ...]:
        """The M phrases that never win, each once."""
        found: dict[str, None] = {}
        for one in self.classes:
            found.update(dict.fromkeys(one.rejects))
        return tuple(found)

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[VocabularyClass]:
        return iter(self.classes)

    def _check_rejects(self) -> None:
        wanted = {spelling_key(phrase): one.name for one in self.classes for phrase in one.phrases}
        for one in self.classes:
            for phrase in one.rejects:
                owner = wanted.get(spelling_key(phrase))
                if owner is not None:
                    raise ValueError(
                        f"{phrase!r} is under 'not' of class {one.name!r} and a phrase of class "
                        f"{owner!r}: take it out of one of them (a class competes "
                        "with all others anyway)"
                    )


@dataclass(frozen=True)
class EmbeddedVocabulary:
    """The vectors of a vocabulary.

    Attributes:
        vocabulary: its classes.
        embeddings: (K, C) unit rows, one for each class.
        rejects: (M, C) unit rows of the phrases that never win.
    """

    vocabulary: Vocabulary
    embeddings: Tensor
    rejects: Tensor

    def label(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Find the best class of each feature.

        Args:
            features: (N, C), of any length.

        Returns:
            Labels (N,) int64, `REJECTED` (-1) where a phrase under `not` matches best, and the
            cosine of the best class (N,).
        """
        unit = unit_length(features)
        cosines, labels = (unit @ self.embeddings.T).max(dim=-1)
        if len(self.rejects):
            best_reject = (unit @ self.rejects.T).amax(dim=-1)
            labels = labels.masked_fill(best_reject > cosines, REJECTED)
        return labels, cosines


def embed_vocabulary(
    model: PictureModel,
    vocabulary: Vocabulary | Sequence[str] | Mapping[str, Any],
    *,
    templates: Sequence[str] = VILD_TEMPLATES,
    read_example: Callable[[str], Tensor] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> EmbeddedVocabulary:
    """Embed the classes of a vocabulary.

    The vector of a class is the weighted mean of the unit vectors of its phrases and examples,
    normalised again. With one phrase, its name, it equals the row of `embed_classes`.

    Args:
        model: a RegionModel.
        vocabulary: classes, see `Vocabulary.of`.
        templates, cache: as in `embed_classes`.
        read_example: reads an example picture by its name: uint8 RGB (3, H, W).

    Raises:
        ValueError: examples without `read_example`, or any error of `Vocabulary.of`.
    """
    vocabulary = Vocabulary.of(vocabulary)
    phrases: dict[str, None] = {}
    for one in vocabulary:
        phrases.update(dict.fromkeys(one.phrases))
    phrases.update(dict.fromkeys(vocabulary.rejects))

    vectors: dict[str, Tensor] = {}
    if phrases:
        rows = embed_classes(model, list(phrases), templates=templates, cache=cache)
        vectors = dict(zip(phrases, rows.unbind(0), strict=True))

    means = []
    for one in vocabulary:
        parts = [(vectors[phrase], weight) for phrase, weight in one.phrases.items()]
        parts += _examples_of(model, one, read_example)
        means.append(torch.stack([vector * weight for vector, weight in parts]).sum(0))

    embeddings = F.normalize(torch.stack(means), dim=-1)
    rejects = [vectors[phrase] for phrase in vocabulary.rejects]
    others = torch.stack(rejects) if rejects else embeddings.new_zeros(0, embeddings.shape[1])
    return EmbeddedVocabulary(vocabulary, embeddings, others)


@torch.no_grad()
def _examples_of(
    model: PictureModel, one: VocabularyClass, read_example: Callable[[str], Tensor] | None
) -> list[tuple[Tensor, float]]:
    """Return the unit vector and the weight of each example picture."""
    if not one.examples:
        return []
    if read_example is None:
        raise ValueError(
            f"class {one.name!r} has example pictures: pass read_example=..., "
            "a function from a name in the file to uint8 RGB (3, H, W)"
        )
    height, width = model.image_size
    pictures = []
    for name in one.examples:
        picture = read_example(name)[None].float()
        resized = F.interpolate(picture, (height, width), mode="bicubic", antialias=True)
        pictures.append(resized.round().clamp(0, 255).to(torch.uint8))

    with evaluation_mode(model):
        features = model.encode_image(model.normalize_pixels(torch.cat(pictures))).float()
    return list(zip(features.unbind(0), one.examples.values(), strict=True))


def _class_of(name: str, entry: Mapping[str, Any]) -> VocabularyClass:
    """Read the entry of one class of a vocabulary file."""
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"class {name!r} has the entry {entry!r}: write a mapping with any of "
            f"{', '.join(FIELDS)}, or {{}} to use the name as the only phrase"
        )
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise ValueError(
            f"class {name!r} has unknown fields {', '.join(map(repr, unknown))}; "
            f"legal fields are {', '.join(FIELDS)}"
        )
    examples = _weights_of(name, "examples", entry.get("examples", []))
    # With "phrases": [] and examples, the name is a label and not a phrase.
    phrases = entry.get("phrases", [name])
    rejects = entry.get("not", [])
    _check_list(name, "not", rejects)
    return VocabularyClass(name, _weights_of(name, "phrases", phrases), tuple(rejects), examples)


def _weights_of(name: str, field: str, value: Sequence[str] | Mapping[str, float]) -> dict:
    if isinstance(value, Mapping):
        return dict(value)
    _check_list(name, field, value)
    if len(set(map(spelling_key, value))) < len(value):
        raise ValueError(
            f"class {name!r} has an entry twice under {field!r} ({list(value)}): remove one, "
            'or give weights as {"phrase": 2}'
        )
    return dict.fromkeys(value, 1.0)


def _check_list(name: str, field: str, value: object) -> None:
    if isinstance(value, str):
        raise ValueError(
            f"class {name!r} has one string under {field!r}: write a list, such as [{value!r}]"
        )
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"class {name!r} has {value!r} under {field!r}: write a list of strings")


def _check_weights(name: str, field: str, weights: Mapping[str, float]) -> None:
    for item, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 1 / LARGEST_WEIGHT <= weight <= LARGEST_WEIGHT:
            raise ValueError(
                f"class {name!r} gives {item!r} under {field!r} the weight {weight!r}: "
                f"write a number from {1 / LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, or remove it"
            )


def _check_texts(name: str, field: str, texts: Sequence[str]) -> None:
    for text in texts:
        if not spelling_key(text):
            raise ValueError(f"class {name!r} has an empty text under {field!r}: remove it")
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # cannot be written
            raise ValueError(f"class {name!r} has half a character in {text!r}: repair it")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(
                f"the vocabulary has {name!r} twice: remove one, or merge them into one entry"
            )
        found[name] = value
    return found

"""The data that the arms of a comparison train on and are measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data import PanopticRegions
from torch import Tensor

Metrics = dict[str, float]


@dataclass(frozen=True)
class TrainingData:
    """The training data. Each arm reads only its own part, so a part that no arm reads may be
    missing.

    Args:
        pairs: shards, or one folder, of images with captions.
        scenes: shards, or one folder, of images.
        proposals: COCO json of boxes in the scenes; their classes are not read.
        nouns: class embeddings (`clim-eval embed`) of the names that boxes can get.
        listed: COCO json with the images of `scenes` that may be used; None for all.
        captions: COCO captions of `scenes`; None where the shards bring them.
    """

    pairs: tuple[str, ...]
    scenes: tuple[str, ...] = ()
    proposals: Path | None = None
    nouns: Path | None = None
    listed: Path | None = None
    captions: Path | None = None


@dataclass(frozen=True)
class RegionSet:
    """Scenes with labelled regions.

    Args:
        embeddings: (K, C) of the classes.
        groups: which labels count for which group of figures.
        words: (K, C) of the names alone, as a user types them; None takes `embeddings`.
    """

    scenes: PanopticRegions
    embeddings: Tensor
    groups: Mapping[str, Sequence[int]]
    words: Tensor | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Items (uint8 (3, s, s) image, label, id) for zero-shot classification, and the embeddings of
    the classes (K, C)."""

    images: Any
    embeddings: Tensor


@dataclass(frozen=True)
class ComparisonData:
    """All data of one comparison.

    Args:
        captions: group -> items (image, captions, id) for retrieval. The group "" has no name in
            the figures.
        zeroshot: group -> labelled images; may be empty.
    """

    train: TrainingData
    regions: tuple[RegionSet, ...]
    captions: Mapping[str, Any]
    zeroshot: Mapping[str, LabelledSet]

    def counts(self) -> dict[str, int]:
        """Return the numbers of scenes, classes, images with captions and labelled images."""
        found: dict[str, int] = {}
        for part in self.regions:
            for group, labels in part.groups.items():
                found[f"{group} scenes"] = len(part.scenes)
                found[f"{group} classes"] = len(labels)

        for group, items in self.captions.items():
            found[f"{group} images with captions".lstrip()] = len(items)
        for group, labelled in self.zeroshot.items():
            found[f"{group} images"] = len(labelled.images)
        return found


def label_groups(names: Sequence[str], unseen: Sequence[str]) -> dict[str, list[int]]:
    """Return the labels of seen and of unseen classes: {"seen": [...], "unseen": [...]}.

    Without unseen classes there is no group "unseen". Raises ValueError for an unseen name that is
    not among `names`.
    """
    if unknown := sorted(set(unseen) - set(names)):
        raise ValueError(
            f"{unknown[:5]} are no classes of the panoptic json: take names of its categories"
        )
    hidden = [label for label, name in enumerate(names) if name in set(unseen)]
    seen = {"seen": [label for label, name in enumerate(names) if name not in set(unseen)]}
    return {**seen, "unseen": hidden} if hidden else seen

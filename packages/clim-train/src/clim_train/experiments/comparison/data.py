"""What an arm of the comparison learns from and is measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data import ImageCaptions, PanopticRegions
from torch import Tensor


@dataclass(frozen=True)
class TrainingData:
    """What is there to learn from; each arm reads its part only (see
    `clim_train.experiments.comparison.arms`).

    pairs: shards, or one folder, of images with captions. scenes: shards, or one folder, of images.
    proposals: COCO json of boxes in them, whose classes are not read. nouns: class embeddings
    (`clim-eval embed`) with the names that boxes may get. listed: COCO json with the images of
    `scenes` that may be used, None for all. captions: COCO captions of `scenes`, None where the
    shards bring them.
    """

    pairs: tuple[str, ...]
    scenes: tuple[str, ...]
    proposals: Path
    nouns: Path
    listed: Path | None = None
    captions: Path | None = None


@dataclass(frozen=True)
class RegionSet:
    """Scenes with labelled regions, the class embeddings (K, C), and which labels count for which
    group of figures."""

    scenes: PanopticRegions
    embeddings: Tensor
    groups: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class LabelledSet:
    """Items (uint8 (3, s, s) image, label, id) for zero-shot classification, and the embeddings of
    the classes."""

    images: Any
    embeddings: Tensor


@dataclass(frozen=True)
class ComparisonData:
    """Everything of one comparison. `zeroshot`: group -> images; may be empty."""

    train: TrainingData
    regions: tuple[RegionSet, ...]
    captions: ImageCaptions
    zeroshot: Mapping[str, LabelledSet]

    def counts(self) -> dict[str, int]:
        """Scenes and classes of each group, captions' images, and images of each zero-shot set."""
        found = {}
        for part in self.regions:
            for group, labels in part.groups.items():
                found |= {f"{group} scenes": len(part.scenes), f"{group} classes": len(labels)}
        found["images with captions"] = len(self.captions)
        return found | {
            f"{group} images": len(part.images) for group, part in self.zeroshot.items()
        }


def label_groups(names: Sequence[str], unseen: Sequence[str]) -> dict[str, list[int]]:
    """Labels of the classes in and not in `unseen`: {"seen": [...], "unseen": [...]}, the latter
    only if there is one.

    Raises ValueError for an unseen class that is no class.
    """
    if unknown := sorted(set(unseen) - set(names)):
        raise ValueError(
            f"{unknown[:5]} are no classes of the panoptic json: take names of its categories"
        )
    hidden = [label for label, name in enumerate(names) if name in set(unseen)]
    seen = {"seen": [label for label, name in enumerate(names) if name not in set(unseen)]}
    return {**seen, "unseen": hidden} if hidden else seen

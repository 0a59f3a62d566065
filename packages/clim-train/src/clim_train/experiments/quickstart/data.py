"""What the quick start trains and tests on: shards of the embedded drawings, composed scenes,
single drawings.

Nothing of the held-out vendor or of the held-out concepts is trained on. Choices are made on the
validation split: other held-out concepts, drawn by the training vendors, and new scenes of trained
drawings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import PanopticRegions
from clim_data.drawings import (
    EmojiSet,
    EmojiSplit,
    caption_of,
    compose_scenes,
    load_emoji,
    write_emoji_shards,
)
from clim_models import RegionModel
from torch import Tensor
from torch.nn.functional import normalize

from clim_train.experiments.augment import on_white
from clim_train.experiments.pretrain_tiny import text_features

SPLITS = ("test", "val")


@dataclass(frozen=True)
class SceneSet:
    """Composed scenes, single drawings of the same classes, and the class embeddings (K, C).

    labels of scenes and drawings are rows of `embeddings`; drawings: items (uint8 (3, s, s), label,
    caption).
    """

    name: str
    scenes: PanopticRegions
    drawings: list[tuple[Tensor, int, str]]
    classes: tuple[str, ...]
    embeddings: Tensor

    def labelled(self) -> list[tuple[Tensor, int, int]]:
        """(image, label, id) items of the drawings, for classification."""
        return [(image, label, i) for i, (image, label, _) in enumerate(self.drawings)]

    def captioned(self) -> list[tuple[Tensor, list[str], int]]:
        """(image, captions, id) items of the drawings, for retrieval."""
        return [(image, [caption], i) for i, (image, _, caption) in enumerate(self.drawings)]


@dataclass(frozen=True)
class QuickstartData:
    """Shards to train on, the sets to evaluate on, and the split they follow."""

    shards: tuple[str, ...]
    sets: tuple[SceneSet, ...]
    split: EmojiSplit


def set_plan(split: EmojiSplit, which: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """name -> (vendors, concepts) of the evaluation sets of "test" or "val"; ValueError for another
    name."""
    if which == "test":
        vendor = (split.test_vendor,)
        return {
            "unseen_vendor": (vendor, split.train_concepts),
            "unseen_concepts": (vendor, split.test_concepts),
        }
    if which == "val":
        vendors = split.train_vendors
        return {
            "seen_drawings": (vendors, split.train_concepts),
            "val_concepts": (vendors, split.val_concepts),
        }
    raise ValueError(f"split={which!r}; legal values are {SPLITS}")


def prepare_data(
    folder: Path,
    model: RegionModel,
    *,
    which: str = "test",
    scenes: int = 200,
    scene_px: int = 192,
    classes: int | None = None,
) -> QuickstartData:
    """Write shards and scenes below `folder` and embed the classes; the same files come out each
    time.

    model: whose text tower, stride and native size are used; scene_px: side of a scene for the
    model; classes: only so many classes of each set (for a quick look; accuracies are then of an
    easier task), None for all.
    """
    emoji = load_emoji()
    split = emoji.split()
    shards = tuple(
        str(path) for path in write_emoji_shards(folder / "shards", emoji=emoji, split=split)
    )
    sets = []
    for seed, (name, (vendors, concepts)) in enumerate(set_plan(split, which).items()):
        root, concepts = folder / "scenes" / name, concepts[:classes]
        target = compose_scenes(
            root,
            vendor=vendors,
            concepts=concepts,
            count=scenes,
            emoji=emoji,
            seed=100 * SPLITS.index(which) + seed,
        )
        regions = PanopticRegions(
            target.images,
            target.panoptic_json,
            target.panoptic,
            image_px=scene_px,
            stride=model.stride,
            crop_px=model.image_size[0],
        )
        embeddings = normalize(class_features(model, concepts), dim=-1)
        sets.append(
            SceneSet(name, regions, single_drawings(emoji, vendors, concepts), concepts, embeddings)
        )
    return QuickstartData(shards, tuple(sets), split)


def class_features(model: RegionModel, concepts: Sequence[str]) -> Tensor:
    """(K, C): mean over the templates of the pretraining of each class's unit text features."""
    return text_features(model.clip, tuple(concepts)).mean(0)


def single_drawings(
    emoji: EmojiSet, vendors: Sequence[str], concepts: Sequence[str]
) -> list[tuple[Tensor, int, str]]:
    """One drawing per concept on white, by the first of `vendors` that has it: (uint8 (3, s, s),
    label, caption)."""
    items = []
    for label, name in enumerate(concepts):
        vendor = next((vendor for vendor in vendors if emoji.has(vendor, name)), None)
        if vendor is not None:
            pixels = torch.from_numpy(emoji.image(vendor, name).copy()).permute(2, 0, 1)[None]
            items.append((on_white(pixels)[0], label, caption_of(name)))
    return items

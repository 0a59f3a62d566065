"""What the arms of a comparison learn from and are measured on, and this on the embedded drawings.

Letters: K classes, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data import ImageCaptions, PanopticRegions
from clim_data.emoji import EmojiSplit, caption_of, load_emoji, write_emoji_shards
from clim_data.scenes import SceneFolder, compose_scenes
from clim_eval import save_class_embeddings
from clim_models import RegionModel
from torch import Tensor
from torch.nn.functional import normalize

from clim_train.quickstart_data import SPLITS, class_features, single_drawings

TRAIN_SEED = 1000  # of the training scenes, away from the seeds of the scenes of `quickstart_data`


@dataclass(frozen=True)
class TrainingData:
    """What is there to learn from; each arm reads its part only (see `clim_train.compare_arms`).

    pairs: shards, or one folder, of images with captions. scenes: shards, or one folder, of images. proposals: COCO
    json of boxes in them, whose classes are not read. nouns: class embeddings (`clim-eval embed`) with the names that
    boxes may get. listed: COCO json with the images of `scenes` that may be used, None for all. captions: COCO
    captions of `scenes`, None where the shards bring them.
    """

    pairs: tuple[str, ...]
    scenes: tuple[str, ...]
    proposals: Path
    nouns: Path
    listed: Path | None = None
    captions: Path | None = None


@dataclass(frozen=True)
class RegionSet:
    """Scenes with labelled regions, the class embeddings (K, C), and which labels count for which group of figures."""

    scenes: PanopticRegions
    embeddings: Tensor
    groups: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class LabelledSet:
    """Items (uint8 (3, s, s) image, label, id) for zero-shot classification, and the embeddings of the classes."""

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
        return found | {f"{group} images": len(part.images) for group, part in self.zeroshot.items()}


def group_plan(split: EmojiSplit, which: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """group -> (vendors, concepts) of the scenes of "test" or "val"; ValueError for another name.

    test: the vendor and, in "unseen", the concepts were never trained on. val: new scenes of trained drawings, and
    other concepts that were never trained on, by the training vendors.
    """
    if which == "test":
        return {
            "seen": ((split.test_vendor,), split.train_concepts),
            "unseen": ((split.test_vendor,), split.test_concepts),
        }
    if which == "val":
        return {
            "seen": (split.train_vendors, split.train_concepts),
            "unseen": (split.train_vendors, split.val_concepts),
        }
    raise ValueError(f"split={which!r}; legal values are {SPLITS}")


def embedded_data(
    folder: Path,
    model: RegionModel,
    *,
    which: str = "test",
    scenes: int = 200,
    train_scenes: int = 1000,
    scene_px: int = 192,
    classes: int | None = None,
) -> ComparisonData:
    """Write shards, training scenes and test scenes below `folder`; the same files come out each time.

    classes: only so many concepts of each group (for a quick look; accuracies are then of an easier task).
    """
    emoji = load_emoji()
    split = emoji.split()
    shards = tuple(str(path) for path in write_emoji_shards(folder / "pairs", emoji=emoji, split=split))
    trained = split.train_concepts[:classes]
    train = compose_scenes(
        folder / "train", vendor=split.train_vendors, concepts=trained, count=train_scenes, emoji=emoji, seed=TRAIN_SEED
    )
    nouns = folder / "nouns.safetensors"
    rows = unit_features(model, trained)
    save_class_embeddings(nouns, rows, [caption_of(name) for name in trained], "name", model=model)
    regions, zeroshot = [], {}
    for seed, (group, (vendors, concepts)) in enumerate(group_plan(split, which).items()):
        concepts = concepts[:classes]
        target = compose_scenes(
            folder / "scenes" / f"{which}_{group}",
            vendor=vendors,
            concepts=concepts,
            count=scenes,
            emoji=emoji,
            seed=100 * SPLITS.index(which) + seed,
        )
        embeddings = rows if concepts == trained else unit_features(model, concepts)
        regions.append(RegionSet(scene_regions(target, model, scene_px), embeddings, {group: range(len(concepts))}))
        drawings = single_drawings(emoji, vendors, concepts)
        zeroshot[group] = LabelledSet([(image, label, i) for i, (image, label, _) in enumerate(drawings)], embeddings)
    first = SceneFolder(folder / "scenes" / f"{which}_seen", ())
    return ComparisonData(
        TrainingData(shards, (str(train.images),), train.instances_json, nouns, captions=train.captions_json),
        tuple(regions),
        ImageCaptions(first.images, first.captions_json, scene_px),
        zeroshot,
    )


def unit_features(model: RegionModel, concepts: Sequence[str]) -> Tensor:
    """(K, C) unit class embeddings of drawings' names."""
    return normalize(class_features(model, concepts), dim=-1)


def scene_regions(scenes: SceneFolder, model: RegionModel, scene_px: int) -> PanopticRegions:
    """The scenes as the evaluator reads them, with crops at the model's native size."""
    return PanopticRegions(
        scenes.images,
        scenes.panoptic_json,
        scenes.panoptic,
        image_px=scene_px,
        stride=model.stride,
        crop_px=model.image_size[0],
    )


def label_groups(names: Sequence[str], unseen: Sequence[str]) -> dict[str, list[int]]:
    """Labels of the classes in and not in `unseen`: {"seen": [...], "unseen": [...]}, the latter only if there is one.

    Raises ValueError for an unseen class that is no class.
    """
    if unknown := sorted(set(unseen) - set(names)):
        raise ValueError(f"{unknown[:5]} are no classes of the panoptic json: take names of its categories")
    hidden = [label for label, name in enumerate(names) if name in set(unseen)]
    seen = {"seen": [label for label, name in enumerate(names) if name not in set(unseen)]}
    return {**seen, "unseen": hidden} if hidden else seen

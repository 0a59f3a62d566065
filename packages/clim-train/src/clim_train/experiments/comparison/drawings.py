"""The data of a comparison from the embedded drawings.

Letters: K classes, C channels.
"""

from collections.abc import Sequence
from pathlib import Path

from clim_data import ImageCaptions, PanopticRegions
from clim_data.drawings import (
    EmojiSplit,
    SceneFolder,
    caption_of,
    compose_scenes,
    load_emoji,
    write_emoji_shards,
)
from clim_eval import save_class_embeddings
from clim_models import RegionModel
from torch import Tensor
from torch.nn.functional import normalize

from clim_train.experiments.comparison.data import (
    ComparisonData,
    LabelledSet,
    RegionSet,
    TrainingData,
)
from clim_train.experiments.quickstart.data import SPLITS, class_features, single_drawings

TRAIN_SEED = 1000  # of the training scenes, away from the seeds of the scenes of `quickstart_data`


def group_plan(split: EmojiSplit, which: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """group -> (vendors, concepts) of the scenes of "test" or "val"; ValueError for another name.

    test: the vendor and, in "unseen", the concepts were never trained on. val: new scenes of
    trained drawings, and other concepts that were never trained on, by the training vendors.
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
    """Write shards, training scenes and test scenes below `folder`; the same files come out each
    time.

    classes: only so many concepts of each group (for a quick look; accuracies are then of an easier
    task).
    """
    emoji = load_emoji()
    split = emoji.split()
    shards = tuple(
        str(path) for path in write_emoji_shards(folder / "pairs", emoji=emoji, split=split)
    )
    trained = split.train_concepts[:classes]
    train = compose_scenes(
        folder / "train",
        vendor=split.train_vendors,
        concepts=trained,
        count=train_scenes,
        emoji=emoji,
        seed=TRAIN_SEED,
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
        regions.append(
            RegionSet(
                scene_regions(target, model, scene_px), embeddings, {group: range(len(concepts))}
            )
        )
        drawings = single_drawings(emoji, vendors, concepts)
        zeroshot[group] = LabelledSet(
            [(image, label, i) for i, (image, label, _) in enumerate(drawings)], embeddings
        )
    first = SceneFolder(folder / "scenes" / f"{which}_seen", ())
    return ComparisonData(
        TrainingData(
            shards, (str(train.images),), train.instances_json, nouns, captions=train.captions_json
        ),
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

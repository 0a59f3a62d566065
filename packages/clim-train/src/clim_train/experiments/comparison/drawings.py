"""The data of a comparison from the embedded drawings.

No model trains on the held-out vendor or on the held-out concepts. Options were chosen on the
validation split: other held-out concepts by the training vendors, and new scenes of trained
drawings.

Letters: K classes, C channels, s pixels of a side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from clim_data import ImageCaptions, PanopticRegions
from clim_data.drawings import (
    EmojiSet,
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

from clim_train.experiments.augment import on_white
from clim_train.experiments.comparison.data import (
    ComparisonData,
    LabelledSet,
    RegionSet,
    TrainingData,
)
from clim_train.experiments.tiny_texts import text_features, unpadded_tokenizer

SPLITS = ("test", "val")
TRAIN_SEED = 1000
"""Seed of the training scenes, different from the seeds of the measured scenes."""

Drawing = tuple[Tensor, int, str]
"""A uint8 (3, s, s) image on white, its label, its caption."""


@dataclass(frozen=True)
class DrawingOptions:
    """Which of the embedded drawings are used, and how many scenes are composed of them.

    Args:
        split: "test", or "val" for choices.
        scenes: composed scenes of each group.
        train_scenes: composed scenes to train on; 0 where no arm trains on scenes.
        scene_px: side at which the model sees a scene.
        classes: only the first concepts of each group, for a quick look (accuracies are then of an
            easier task). None for all.
        retrieve: retrieval among "scenes" of the trained concepts, or among single "drawings" of
            each group.
        names: other names for the groups "seen" and "unseen".
    """

    split: str = "test"
    scenes: int = 200
    train_scenes: int = 1000
    scene_px: int = 192
    classes: int | None = None
    retrieve: Literal["scenes", "drawings"] = "scenes"
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}; legal values are {SPLITS}")


def group_plan(
    split: EmojiSplit, options: DrawingOptions
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return group -> (vendors, concepts) of the measured scenes and drawings.

    test: the vendor and, in "unseen", the concepts were never trained on. val: new scenes of
    trained drawings, and other concepts that were never trained on, by the training vendors.
    """
    vendors, unseen = split.train_vendors, split.val_concepts
    if options.split == "test":
        vendors, unseen = (split.test_vendor,), split.test_concepts

    plan = {"seen": split.train_concepts, "unseen": unseen}
    return {
        options.names.get(group, group): (vendors, concepts[: options.classes])
        for group, concepts in plan.items()
    }


def embedded_data(
    folder: Path, model: RegionModel, options: DrawingOptions, *, train: bool = True
) -> ComparisonData:
    """Write shards, training scenes and measured scenes below `folder`.

    The same options write the same files each time.

    Args:
        train: False leaves out what there is to train on.
    """
    emoji = load_emoji()
    split = emoji.split()
    trained = split.train_concepts[: options.classes]
    embeddings = {trained: unit_features(model, trained)}
    learnt = TrainingData(())
    if train:
        learnt = _training_data(folder, model, options, emoji, embeddings[trained])

    regions: list[RegionSet] = []
    zeroshot: dict[str, LabelledSet] = {}
    captions: dict[str, Any] = {}
    for number, (group, (vendors, concepts)) in enumerate(group_plan(split, options).items()):
        scenes = compose_scenes(
            folder / "scenes" / f"{options.split}_{group}",
            vendor=vendors,
            concepts=concepts,
            count=options.scenes,
            emoji=emoji,
            seed=100 * SPLITS.index(options.split) + number,
        )
        if concepts not in embeddings:
            embeddings[concepts] = unit_features(model, concepts)
        rows = embeddings[concepts]
        shown = scene_regions(scenes, model, options.scene_px)
        words = plain_features(model, concepts)
        regions.append(RegionSet(shown, rows, {group: range(len(concepts))}, words))

        drawings = single_drawings(emoji, vendors, concepts)
        labelled = [(image, label, i) for i, (image, label, _) in enumerate(drawings)]
        zeroshot[group] = LabelledSet(labelled, rows)

        if options.retrieve == "drawings":
            captions[group] = [(image, [text], i) for i, (image, _, text) in enumerate(drawings)]
        elif not captions:
            captions[""] = ImageCaptions(scenes.images, scenes.captions_json, options.scene_px)

    return ComparisonData(learnt, tuple(regions), captions, zeroshot)


def _training_data(
    folder: Path, model: RegionModel, options: DrawingOptions, emoji: EmojiSet, embeddings: Tensor
) -> TrainingData:
    """Write the training data; `embeddings` belong to the trained concepts."""
    split = emoji.split()
    shards = write_emoji_shards(folder / "pairs", emoji=emoji, split=split)
    pairs = tuple(str(path) for path in shards)
    if not options.train_scenes:
        return TrainingData(pairs)

    concepts = split.train_concepts[: options.classes]
    scenes = compose_scenes(
        folder / "train",
        vendor=split.train_vendors,
        concepts=concepts,
        count=options.train_scenes,
        emoji=emoji,
        seed=TRAIN_SEED,
    )
    nouns = folder / "nouns.safetensors"
    names = [caption_of(name) for name in concepts]
    save_class_embeddings(nouns, embeddings, names, "name", model=model)
    return TrainingData(
        pairs,
        scenes=(str(scenes.images),),
        proposals=scenes.instances_json,
        nouns=nouns,
        captions=scenes.captions_json,
    )


def unit_features(model: RegionModel, concepts: Sequence[str]) -> Tensor:
    """Return (K, C) unit class embeddings: the mean over the templates of the pretraining."""
    return normalize(text_features(model.clip, tuple(concepts)).mean(0), dim=-1)


@torch.no_grad()
def plain_features(model: RegionModel, concepts: Sequence[str]) -> Tensor:
    """Return (K, C) unit embeddings of the names alone, as a user types them."""
    ids = unpadded_tokenizer(model.tokenizer)([caption_of(name) for name in concepts])
    return torch.cat([model.encode_text(part).cpu() for part in ids.split(256)])


def scene_regions(scenes: SceneFolder, model: RegionModel, scene_px: int) -> PanopticRegions:
    """Return the scenes as the evaluator reads them, with crops at the model's native size."""
    return PanopticRegions(
        scenes.images,
        scenes.panoptic_json,
        scenes.panoptic,
        image_px=scene_px,
        stride=model.stride,
        crop_px=model.image_size[0],
    )


def single_drawings(
    emoji: EmojiSet, vendors: Sequence[str], concepts: Sequence[str]
) -> list[Drawing]:
    """Return one drawing per concept, by the first of `vendors` that has one."""
    items = []
    for label, name in enumerate(concepts):
        vendor = next((vendor for vendor in vendors if emoji.has(vendor, name)), None)
        if vendor is not None:
            pixels = torch.from_numpy(emoji.image(vendor, name).copy()).permute(2, 0, 1)[None]
            items.append((on_white(pixels)[0], label, caption_of(name)))
    return items

"""Scenes with boxes of base concepts to train on, scenes with base and novel concepts to measure
on, and the classes of both.

Letters: K classes, n_i boxes of scene i.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_data.drawings import (
    EmojiSplit,
    SceneFolder,
    caption_of,
    compose_scenes,
    load_emoji,
)
from clim_models import RegionModel
from clim_models.detection import ClassSet, embed_class_set
from torch import Tensor

from clim_train.experiments.comparison.drawings import SPLITS, TRAIN_SEED
from clim_train.experiments.detection.names import other_names
from clim_train.experiments.detection.options import DetectionOptions
from clim_train.experiments.tiny_texts import TEMPLATES

OWN_NAMES = "own names"
ONE_OTHER = "one other name"
SEVERAL_OTHERS = "several other names"

# Away from the seeds of the other comparisons' scenes.
_MEASURE_SEED = 200


@dataclass(frozen=True)
class Concepts:
    """Concepts and vendors of the scenes.

    Attributes:
        base: concepts that train with boxes; their captions are the first classes.
        novel: never trained on, neither by a tower nor by a detector.
        shown: base concepts of the scenes that are measured, as many as there are novel ones.
        vendors: whose drawings are measured.
    """

    base: tuple[str, ...]
    novel: tuple[str, ...]
    vendors: tuple[str, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        return self.base[: len(self.novel)]

    @classmethod
    def of(cls, split: EmojiSplit, options: DetectionOptions) -> "Concepts":
        """Choose the concepts of a split of the drawings."""
        novel, vendors = split.val_concepts, split.train_vendors
        if options.split == "test":
            novel, vendors = split.test_concepts, (split.test_vendor,)
        return cls(
            split.train_concepts[: options.classes], novel[: options.classes], tuple(vendors)
        )


@dataclass(frozen=True)
class DetectionScenes:
    """All data that the detectors train on and are measured on.

    Attributes:
        train: scenes of base concepts, by the training vendors.
        test: scenes of base and novel concepts.
        vocabularies: what the classes are called -> base classes in the order of `train`, then
            novel ones. Base classes always have their own names.
        background: (C,), the embedding of the background.
    """

    concepts: Concepts
    train: SceneFolder
    test: SceneFolder
    vocabularies: dict[str, ClassSet]
    background: Tensor

    @property
    def base_classes(self) -> ClassSet:
        """Return the classes of the training: all of them have boxes."""
        whole, count = self.vocabularies[OWN_NAMES], len(self.concepts.base)
        return ClassSet(whole.names[:count], whole.embeddings[:count], range(count))


def detection_scenes(
    folder: Path, model: RegionModel, options: DetectionOptions
) -> DetectionScenes:
    """Compose the scenes below `folder`; the same options write the same files each time."""
    emoji = load_emoji()
    split = emoji.split()
    concepts = Concepts.of(split, options)

    train = compose_scenes(
        folder / "train",
        vendor=split.train_vendors,
        concepts=concepts.base,
        count=options.train_scenes,
        emoji=emoji,
        seed=TRAIN_SEED,
    )
    test = compose_scenes(
        folder / options.split,
        vendor=concepts.vendors,
        concepts=(*concepts.shown, *concepts.novel),
        count=options.scenes,
        emoji=emoji,
        seed=_MEASURE_SEED + SPLITS.index(options.split),
    )
    background = embed_class_set(model, ["background"], templates=TEMPLATES).embeddings[0]
    return DetectionScenes(concepts, train, test, embed_vocabularies(model, concepts), background)


def embed_vocabularies(model: RegionModel, concepts: Concepts) -> dict[str, ClassSet]:
    """Embed all classes with the own names of the novel ones, and with other names, if known.

    A class that has several names has the mean of their vectors.
    """
    base = [caption_of(concept) for concept in concepts.base]
    novel = [caption_of(concept) for concept in concepts.novel]
    whole = embed_class_set(model, [*base, *novel], base=base, templates=TEMPLATES)
    vocabularies = {OWN_NAMES: whole}

    others = other_names(concepts.novel)
    if others is None:
        return vocabularies
    for title, count in ((ONE_OTHER, 1), (SEVERAL_OTHERS, None)):
        phrases = {name: {"phrases": names[:count]} for name, names in others.items()}
        called = embed_class_set(model, phrases, templates=TEMPLATES)
        rows = torch.cat([whole.embeddings[: len(base)], called.embeddings])
        vocabularies[title] = ClassSet(whole.names, rows, whole.base)
    return vocabularies


def read_truth(scenes: SceneFolder) -> dict[str, Any]:
    """Return the COCO annotations of composed scenes."""
    content: dict[str, Any] = json.loads(scenes.instances_json.read_text())
    return content


def scene_boxes(scenes: SceneFolder) -> tuple[list[Tensor], list[Tensor]]:
    """Return boxes (n_i, 4) XYXY in pixels and labels (n_i,) of each scene, in the order of ids.

    A label is the place of a concept in `scenes.classes`.
    """
    truth = read_truth(scenes)
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in truth["images"]}
    labels: dict[int, list[int]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        left, top, width, height = annotation["bbox"]
        boxes[annotation["image_id"]].append([left, top, left + width, top + height])
        labels[annotation["image_id"]].append(annotation["category_id"] - 1)
    return (
        [torch.tensor(rows).reshape(-1, 4) for rows in boxes.values()],
        [torch.tensor(rows, dtype=torch.int64) for rows in labels.values()],
    )


def scene_files(scenes: SceneFolder) -> list[Path]:
    """Return the image files of composed scenes, in the order of their ids."""
    return [scenes.images / image["file_name"] for image in read_truth(scenes)["images"]]

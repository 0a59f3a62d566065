"""The figures of a detector: AP50 of base and novel concepts, and recall without regard to class.

Letters: n boxes found, m true boxes, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from clim_eval.evaluators import FoundObjects, Picture, coco_results
from clim_eval.metrics import open_vocabulary_ap
from clim_models.detection import ClassSet, Detections, TwoStageDetector
from torch import Tensor
from torchvision.ops import box_iou

from clim_train.experiments.comparison.data import Metrics
from clim_train.experiments.detection.scenes import (
    OWN_NAMES,
    DetectionScenes,
    read_truth,
    scene_boxes,
)
from clim_train.experiments.detection.stored import StoredMaps

IOU = 0.5
"""Overlap from which a box counts as found."""

# Scenes that the heads read at once.
_BATCH = 16


def measure_detector(
    detector: TwoStageDetector, maps: StoredMaps, scenes: DetectionScenes
) -> Metrics:
    """Measure a detector on the held-out scenes.

    Args:
        maps: of the detector's tower, of `scenes.test`, with the CLIP map.

    Returns:
        Fractions: "AP50.base", "AP50.novel", "recall.base", "recall.novel", and "AP50.novel, HOW"
        for every other way HOW to call the novel classes.
    """
    truth = read_truth(scenes.test)
    groups = _groups(scenes)
    metrics: Metrics = {}
    for title, classes in scenes.vocabularies.items():
        found = list(found_in(detector, maps, classes))
        records = _records(found, classes.names, truth)
        figures = open_vocabulary_ap(
            truth, records, base=groups["base"], novel=groups["novel"], protocol="fvit"
        )
        if title != OWN_NAMES:
            metrics[f"AP50.novel, {title}"] = figures["fvit.AP50_novel"]
            continue

        metrics |= {f"AP50.{group}": figures[f"fvit.AP50_{group}"] for group in groups}
        metrics |= recalls(found, scenes)
    return metrics


def found_in(
    detector: TwoStageDetector, maps: StoredMaps, classes: ClassSet
) -> Iterator[Detections]:
    """Yield the detections in each scene of `maps`, on the CPU."""
    asked = detector.eval().with_classes(classes)
    device = asked.classes.embeddings.device
    for first in range(0, len(maps), _BATCH):
        tower = maps.at(slice(first, first + _BATCH), device)
        for found in asked.detect_in_maps(tower, [maps.frame] * len(tower.pyramid[0])):
            yield Detections(found.boxes.cpu(), found.scores.cpu(), found.labels.cpu())


def recalls(found: Sequence[Detections], scenes: DetectionScenes) -> Metrics:
    """Return the fraction of true boxes that a found box overlaps, of any class.

    Returns:
        "recall.base" and "recall.novel".
    """
    boxes, labels = scene_boxes(scenes.test)
    hits = torch.cat([_is_found(one, true) for one, true in zip(found, boxes, strict=True)])
    is_novel = torch.cat(labels) >= len(scenes.concepts.shown)
    return {
        "recall.base": hits[~is_novel].float().mean().item(),
        "recall.novel": hits[is_novel].float().mean().item(),
    }


def _is_found(found: Detections, true: Tensor) -> Tensor:
    """Tell of each true box (m, 4) whether it is found: bool (m,)."""
    if not len(found.boxes):
        return torch.zeros(len(true), dtype=torch.bool)
    return box_iou(true, found.boxes).amax(dim=1) >= IOU


def _groups(scenes: DetectionScenes) -> dict[str, list[str]]:
    """Return the names of the categories in the scenes: {"base": [...], "novel": [...]}."""
    names = [category["name"] for category in read_truth(scenes.test)["categories"]]
    count = len(scenes.concepts.shown)
    return {"base": names[:count], "novel": names[count:]}


def _records(
    found: Sequence[Detections], names: Sequence[str], truth: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return COCO results; boxes of base classes that no scene shows are left out."""
    ids = {category["name"]: category["id"] for category in truth["categories"]}
    category_ids = [ids.get(name) for name in names]
    blank = torch.zeros(3, 1, 1, dtype=torch.uint8)
    records = []
    for image, objects in zip(truth["images"], found, strict=True):
        picture = Picture(image["id"], image["file_name"], blank)
        records += coco_results(FoundObjects(picture, objects), category_ids)
    return [record for record in records if record["category_id"] is not None]

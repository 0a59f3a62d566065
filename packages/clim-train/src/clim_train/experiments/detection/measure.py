"""The figures of a detector: which of the words it finds, AP50 of base and novel concepts, and
recall without regard to class.

Letters: n boxes found, m true boxes, K classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        Fractions: "asked.base" and "asked.novel" (see `answers`), "AP50.base", "AP50.novel",
        "recall.base", "recall.novel", and "AP50.novel, HOW" for every other way HOW to call the
        novel classes.
    """
    truth = read_truth(scenes.test)
    groups = _groups(scenes)
    metrics = asked(answers(detector, maps, scenes), scenes)
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


@dataclass(frozen=True)
class Answers:
    """The answers of a detector that is asked for the words of a scene.

    Attributes:
        words: the m words that the scene shows, one for each true box.
        boxes: (m, 4), the best box of each word, XYXY in pixels; zeros for a word without a box.
        right: bool (m,), whether that box overlaps a drawing of the word with IoU 0.5.
    """

    words: list[str]
    boxes: Tensor
    right: Tensor


def answers(
    detector: TwoStageDetector, maps: StoredMaps, scenes: DetectionScenes
) -> Iterator[Answers]:
    """Ask for the words of each scene, and for those of the next one, which it does not show.

    This is how a detector is used: with the few words that somebody looks for, and some of them
    are not there. Base concepts are known to be base concepts, as in `with_vocabulary`.

    Args:
        maps: of the detector's tower, of the first scenes of `scenes.test`, with the CLIP map.
    """
    whole = scenes.vocabularies[OWN_NAMES]
    boxes, labels = scene_boxes(scenes.test)
    places = [_places(one, scenes) for one in labels]
    device = whole.embeddings.device
    detector = detector.eval()

    for number in range(len(maps)):
        others = set(places[(number + 1) % len(places)]) - set(places[number])
        rows = [*dict.fromkeys(places[number]), *sorted(others)]
        base = [k for k, row in enumerate(rows) if row in whole.base]
        asked_for = ClassSet([whole.names[row] for row in rows], whole.embeddings[rows], base)
        tower = maps.at(slice(number, number + 1), device)
        [found] = detector.with_classes(asked_for).detect_in_maps(tower, [maps.frame])
        wanted = torch.tensor([rows.index(row) for row in places[number]], dtype=torch.int64)
        best = _best_boxes(found, wanted.to(device)).cpu()

        # A scene may show a word twice: its best box may be on either drawing.
        same = labels[number][:, None] == labels[number][None]
        hits = (box_iou(best, boxes[number]) >= IOU) & same
        yield Answers([whole.names[row] for row in places[number]], best, hits.any(dim=1))


def asked(answered: Iterable[Answers], scenes: DetectionScenes) -> Metrics:
    """Return the share of words in the scenes whose best box is on their drawing.

    Returns:
        "asked.base" and "asked.novel".
    """
    _, labels = scene_boxes(scenes.test)
    right = torch.cat([one.right for one in answered])
    is_novel = torch.cat(labels) >= len(scenes.concepts.shown)
    return {
        "asked.base": right[~is_novel].float().mean().item(),
        "asked.novel": right[is_novel].float().mean().item(),
    }


def _places(labels: Tensor, scenes: DetectionScenes) -> list[int]:
    """Return where the concepts of a measured scene are in the vocabulary."""
    shown, base = len(scenes.concepts.shown), len(scenes.concepts.base)
    return torch.where(labels < shown, labels, labels - shown + base).tolist()


def _best_boxes(found: Detections, labels: Tensor) -> Tensor:
    """Return the box (m, 4) with the highest score for each of m labels, zeros without a box."""
    if not len(found.boxes):
        return found.boxes.new_zeros(len(labels), 4)
    is_other = found.labels[None] != labels[:, None]
    scores = found.scores[None].masked_fill(is_other, -1)
    best, place = scores.max(dim=1)
    return torch.where(best[:, None] >= 0, found.boxes[place], 0)


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

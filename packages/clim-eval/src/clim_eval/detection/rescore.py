"""Scores of any detector, combined with the similarity between its boxes and the names of their
classes.

Letters: N detections, n_i those of image i, K classes, M phrases that compete, C channels.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from clim_data import BrokenSample
from clim_data.command_line import need_path
from clim_data.processes import Ranks, load_in_workers
from clim_data.readers import AnnotatedImages
from clim_models import RegionModel
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from clim_eval.detection.annotations import DetectionTruth
from clim_eval.detection.job import PartRecord, ResultsJob, Written, read_results
from clim_eval.detection.options import RescoreOptions, check_weights
from clim_eval.evaluators.box_features import BoxCutter, BoxEncoder, BoxInputs
from clim_eval.metrics.tables import ResultTable, TruthTable
from clim_eval.model_loading import load_chosen_model, reading_px
from clim_eval.reports.coverage import Coverage, check_scored
from clim_eval.reports.provenance import data_fingerprint, hash_file, weights_fingerprint
from clim_eval.version import __version__

# Options that decide the content of the output; the others decide speed and places.
DECIDING = ("weight", "iou_weight", "iou_field", "features", "image_px", "context", "part_images")
# A probability in float32 may exceed 1 by this much.
ROUNDING = 1e-5
# Boxes with a shorter side have no feature, in pixels.
SHORTEST_SIDE = 1.0


def combine_scores(
    scores: np.ndarray,
    probabilities: np.ndarray,
    ious: np.ndarray | None = None,
    *,
    weight: float,
    iou_weight: float = 0.0,
) -> np.ndarray:
    """Compute the weighted geometric mean of scores, probabilities and predicted IoUs.

    Args:
        scores, probabilities, ious: (N,), from 0 to 1; `ious` may be None with a weight of 0.
        weight, iou_weight: of probabilities and IoUs; the rest of 1 is the weight of the scores.

    Raises:
        ValueError: weights out of range, or a weight of IoUs without IoUs.
    """
    check_weights(weight, iou_weight)
    found = scores ** (1 - weight - iou_weight) * probabilities**weight
    if not iou_weight:
        return np.asarray(found)
    if ious is None:
        raise ValueError(f"iou_weight={iou_weight} without IoUs: pass them, or a weight of 0")
    return np.asarray(found * ious**iou_weight)


def rescore_detections(options: RescoreOptions) -> tuple[Written, tuple[Coverage, ...]] | None:
    """Write the results of a detector with new scores, see `RescoreOptions`.

    Every rank of a launcher looks at its part of the images; rank 0 writes. The same call continues
    a killed run. Detections of unreadable images are skipped.

    Returns:
        The written results, and the numbers of images and detections in them; None on ranks other
        than the first.

    Raises:
        FileNotFoundError, ValueError: an input is missing or does not fit, or `out` holds results
            of other input or options.
    """
    need_path(options.detections, "--detections")
    need_path(options.annotations, "--annotations")
    need_path(options.images, "--images", folder=True)
    truth = DetectionTruth.read(options.annotations, annotated=False)
    found = FoundBoxes.read(options, truth)
    model, image_px = _load_model(options)

    crop_px = model.image_size[0] if options.features == "crops" else None
    cutter = BoxCutter(crop_px, image_px, options.context)
    records = [record for record in truth.records.images.values() if record.id in found.rows_of]
    views = _Views(AnnotatedImages(options.images, records), found, cutter)

    names = [category["name"] for category in truth.categories]
    rows = options.classes.rows(model, names)
    work = _Work(views, found, _Similarity.of(options, model, rows), options)
    job = ResultsJob(
        options.out,
        _identity(options, model, rows),
        len(records),
        part_images=options.part_images,
        ranks=Ranks.of_launcher(),
        patience=options.patience,
        overwrite=options.overwrite,
    )

    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = job.run(work, lambda parts: _with_scores(options.detections, parts))
    if written is None:
        return None

    coverage = Coverage.of("images", len(records) - len(written.unread), written.faults)
    check_scored([coverage], "give the folder that holds the images of the annotation file")

    left_out = sum(len(found.rows_of[records[place].id]) for place in written.unread)
    by_rule = {"of an image that is left out": left_out} if left_out else {}
    return written, (coverage, Coverage("detections", len(found) - left_out, by_rule=by_rule))


@dataclass(frozen=True)
class FoundBoxes:
    """The detections of a file.

    Attributes:
        table: scores, boxes XYWH and labels.
        ious: (N,) predicted IoUs, None without a weight for them.
        rows_of: rows of each image, by its id.
    """

    table: ResultTable
    ious: np.ndarray | None
    rows_of: Mapping[Any, np.ndarray]

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def read(cls, options: RescoreOptions, truth: DetectionTruth) -> "FoundBoxes":
        """Read the file of --detections.

        Raises:
            ValueError: it has no detection, or one that cannot be used.
        """
        table = TruthTable.of(truth.contents(), "bbox")
        ious = array("d")
        records: Iterable[dict[str, Any]] = read_results(options.detections)
        if options.iou_weight:
            records = _noting_ious(records, options.iou_field, ious)
        found = ResultTable.of(records, table)
        if not len(found):
            raise ValueError(f"{options.detections} has no detection: there is nothing to rescore")
        factors = [found.scores, *([np.array(ious)] if options.iou_weight else [])]
        lowest = min(factor.min() for factor in factors)
        highest = max(factor.max() for factor in factors)
        if lowest < 0 or highest > 1 + ROUNDING:
            worst = lowest if lowest < 0 else highest
            raise ValueError(
                f"{options.detections} has a score or IoU of {worst:.6g}, and a mean with "
                "probabilities needs numbers from 0 to 1: write a sigmoid of logits, or percent "
                "divided by 100"
            )

        order = np.argsort(found.objects.images, kind="stable")
        images = found.objects.images[order]
        bounds = np.searchsorted(images, np.arange(len(table.row_of) + 1))
        rows_of = {
            image: order[bounds[row] : bounds[row + 1]]
            for image, row in table.row_of.items()
            if bounds[row] < bounds[row + 1]
        }
        return cls(found, np.array(ious) if options.iou_weight else None, rows_of)


def _noting_ious(
    records: Iterable[dict[str, Any]], field: str, ious: array
) -> Iterator[dict[str, Any]]:
    for place, one in enumerate(records, 1):
        value = one.get(field)
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if isinstance(value, bool) or not is_number:
            raise ValueError(
                f"detection {place} has no number {field!r}, which --iou-weight needs: name the "
                "field with --iou-field, or pass --iou-weight 0"
            )
        ious.append(value)
        yield one


@dataclass(frozen=True, kw_only=True)
class _View(BoxInputs):
    """The inputs of an image. image_id: its id. warning: a warning about its frame, or None."""

    image_id: Any
    warning: BrokenSample | None


@dataclass(frozen=True)
class _Views(Dataset):
    """The images that have detections. An item is a _View, or the BrokenSample of an unusable
    image."""

    images: AnnotatedImages
    found: FoundBoxes
    cutter: BoxCutter

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> _View | BrokenSample:
        opened = self.images[place]
        if isinstance(opened, BrokenSample):
            return opened
        rows = self.found.rows_of[opened.image_id]
        size = opened.image.height, opened.image.width
        boxes = _inside(self.found.table.objects.boxes[rows], size)
        try:
            inputs = self.cutter.cut(opened.image, boxes)
        except BrokenSample as fault:
            return fault
        return _View(
            boxes=inputs.boxes,
            image=inputs.image,
            crops=inputs.crops,
            image_id=opened.image_id,
            warning=opened.warning,
        )


def _inside(boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Make XYXY of boxes XYWH (n, 4), inside an image of (height, width) and at least a pixel
    wide."""
    limits = np.array([size[1], size[0]], dtype=float)
    starts = boxes[:, :2].clip(0, limits - SHORTEST_SIDE)
    ends = np.maximum((boxes[:, :2] + boxes[:, 2:]).clip(0, limits), starts + SHORTEST_SIDE)
    return torch.from_numpy(np.concatenate([starts, ends], axis=1))


@dataclass(frozen=True)
class _Similarity:
    """Probabilities of classes by a CLIP.

    encoder: of boxes. classes: (K + M, C) unit rows.
    """

    encoder: BoxEncoder[_View]
    classes: Tensor

    @classmethod
    def of(cls, options: RescoreOptions, model: RegionModel, rows: Tensor) -> "_Similarity":
        encoder: BoxEncoder[_View] = BoxEncoder(model, options.features, options.batch_size)
        return cls(encoder, F.normalize(rows.float(), dim=-1).to(model.device))

    @torch.no_grad()
    def of_labels(self, views: Sequence[_View], labels: Tensor) -> Tensor:
        """Return the probability of the label (N,) of each box among all classes: (N,)."""
        cosines = self.encoder.encode(views) @ self.classes.T
        scale = self.encoder.model.logit_scale.exp().float()
        probabilities = (scale * cosines).softmax(dim=-1)
        return probabilities.gather(1, labels.to(cosines.device)[:, None])[:, 0].cpu()


@dataclass(frozen=True)
class _Work:
    """New scores of the detections of some images."""

    views: _Views
    found: FoundBoxes
    similarity: _Similarity
    options: RescoreOptions

    def __call__(self, places: Sequence[int], bar: tqdm) -> PartRecord:
        part = PartRecord()
        views = load_in_workers(self.views, places, workers=self.options.workers)
        readable = self._readable(places, views, part, bar)
        for batch in self.similarity.encoder.batches(readable):
            rows = np.concatenate([self.found.rows_of[view.image_id] for view in batch])
            labels = torch.from_numpy(self.found.table.objects.labels[rows])
            probabilities = self.similarity.of_labels(batch, labels).double().numpy()
            scores = combine_scores(
                self.found.table.scores[rows],
                probabilities,
                None if self.found.ious is None else self.found.ious[rows],
                weight=self.options.weight,
                iou_weight=self.options.iou_weight,
            )
            part.results += [
                {"row": row, "score": float(f"{score:.7g}")}
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
        return part

    def _readable(
        self,
        places: Sequence[int],
        views: Iterable[_View | BrokenSample],
        part: PartRecord,
        bar: tqdm,
    ) -> Iterator[_View]:
        """Yield the readable images, and note the others."""
        for place, item in zip(places, views, strict=True):
            bar.update()
            if isinstance(item, BrokenSample):
                part.faults.append((place, item))
                continue
            if item.warning is not None:
                part.faults.append((place, item.warning))
            yield item


def _with_scores(path: Path, parts: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the detections of a file that have a new score, with it."""
    scores = {one["row"]: one["score"] for one in parts}
    for row, record in enumerate(read_results(path)):
        if row in scores:
            yield {**record, "score": scores[row]}


def _load_model(options: RescoreOptions) -> tuple[RegionModel, int | None]:
    """Load the model; return it with the side of whole images, None for crops."""
    model = load_chosen_model(options)
    return model, None if options.features == "crops" else reading_px(model, options.image_px)


def _identity(options: RescoreOptions, model: RegionModel, rows: Tensor) -> dict[str, Any]:
    """Return the options and inputs that decide the content of the output."""
    return {
        "made_by": f"clim-eval rescore {__version__}",
        "model": model.name,
        "weights": weights_fingerprint(model),
        "classes": weights_of_rows(rows),
        "detections": hash_file(options.detections),
        "annotations": data_fingerprint([options.annotations], {})["fingerprint"],
        **{name: getattr(options, name) for name in DECIDING},
    }


def weights_of_rows(rows: Tensor) -> str:
    """Return a digest of class vectors."""
    from clim_models.checkpoints import hash_weights

    return hash_weights({"rows": rows.float().cpu()})[:16]

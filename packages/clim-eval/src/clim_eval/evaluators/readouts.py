"""Readouts of one model side by side: the accuracy of naming and of locating regions.

Letters: B images, C channels, h w positions of the map, n regions of an image, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from clim_data.processes import gather_objects
from clim_models import Dense, Pooled, Readout, Request
from clim_models.towers import evaluation_mode
from torch import Tensor

from clim_eval.evaluators.pixels import RegionEncoder
from clim_eval.evaluators.sharing import (
    EvaluationLoading,
    LoadingKeywords,
    choose_loading,
    gather_faults,
    keyed_batches,
    merge_by_key,
    progress_bar,
)
from clim_eval.metrics.accuracy import label_ranks, mean_class_accuracy
from clim_eval.reports.coverage import Coverage, check_scored

BATCH_SIZE = 4
# The surroundings of a box extend by this fraction of its size beyond each side.
AROUND = 0.5


@dataclass(frozen=True)
class ReadoutRows:
    """The result of one readout on one image.

    Attributes:
        labels: (n,) classes of the regions.
        boxes, masks: bool (n,), whether the pooled feature is most similar to the right class.
        above: float (n,), 1 where a region is above its surroundings, 0 where not, nan where the
            map is too coarse to tell.
        classes: (k,) classes that are annotated or predicted at a position.
        counts: int64 (k, 3), positions where prediction and annotation agree, where the class is
            predicted, and where it is annotated.
    """

    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    above: np.ndarray
    classes: np.ndarray
    counts: np.ndarray


class ReadoutComparison:
    """Box accuracy, mask accuracy, mIoU and sign of several readouts, from one pass per image.

    Args:
        model: RegionModel.
        class_embeddings: (K, C), one row for each label of the data; normalised here.
        readouts: which ones. The model refuses those that its tower does not have.
        loading: batch size, workers and progress bar.
        keywords: the fields of `loading` one by one.

    Raises:
        ValueError: no readout, or embeddings of another shape.
    """

    def __init__(
        self,
        model: RegionEncoder,
        class_embeddings: Tensor,
        *,
        readouts: Sequence[Readout],
        loading: EvaluationLoading | None = None,
        **keywords: Unpack[LoadingKeywords],
    ):
        if not readouts:
            raise ValueError(f"no readouts: pass some of {', '.join(Readout)}")
        if class_embeddings.ndim != 2:
            raise ValueError(
                f"class_embeddings has shape {tuple(class_embeddings.shape)}: pass (K, C) rows"
            )
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.float(), dim=-1)
        self.readouts = tuple(dict.fromkeys(readouts))
        self.loading = choose_loading(loading, keywords)
        self.coverage: tuple[Coverage, ...] = ()

    @torch.no_grad()
    def run(self, data: Any) -> dict[str, float]:
        """Return four metrics of each readout, and set `coverage`.

        - ``boxes.mAcc1``, ``masks.mAcc1``: mean over classes of the fraction of regions whose
          pooled feature is most similar to their class.
        - ``mIoU``: mean over annotated classes of intersection over union. Each position that a
          mask covers is given its most similar class; the smallest mask counts where several
          overlap; other positions do not count. Positions are those of the map.
        - ``sign``: fraction of regions whose class is more similar inside the mask than around it,
          in the box enlarged by half its size on each side. 50 % is chance; less means that the
          sign of the map is inverted.

        Args:
            data: a dataset of RegionSample with masks (``clim_data.PanopticRegions``).

        Raises:
            ValueError: no region was scored, or the data brings no masks.
        """
        batches, total = keyed_batches(
            data,
            lambda sample: sample.image_id,
            batch_size=self.loading.batch_size or BATCH_SIZE,
            workers=self.loading.workers,
        )
        found: list[tuple[Any, dict[Readout, ReadoutRows]]] = []
        faults = []
        with evaluation_mode(self.model):
            for batch in progress_bar(batches, total, "readouts", self.loading.progress):
                faults += [(key, item.fault) for key, item in batch if item.fault is not None]
                found += self._images([pair for pair in batch if len(pair[1].labels)])

        images = merge_by_key(gather_objects(found))
        coverage = Coverage.of("images", len(images), gather_faults(data, faults))
        self.coverage = (coverage,)
        check_scored(self.coverage, "check that the annotation file belongs to the images")
        metrics = {}
        for readout in self.readouts:
            values = _summary([image[readout] for image in images])
            metrics.update({f"{readout.value}.{name}": value for name, value in values.items()})
        return metrics

    def _images(self, batch: list[tuple[Any, Any]]) -> list[tuple[Any, dict[Readout, ReadoutRows]]]:
        """Return (key, rows of each readout) for each image of one batch."""
        if not batch:
            return []
        samples = [sample for _, sample in batch]
        if any(sample.masks is None for sample in samples):
            raise ValueError("the data brings no masks: build it with masks=True")

        pixels = self.model.normalize_pixels(torch.stack([sample.image for sample in samples]))
        device = pixels.device
        boxes = [sample.boxes.to(device) for sample in samples]
        masks = [sample.masks.to(device) for sample in samples]
        requests: list[Request] = []
        for readout in self.readouts:
            requests += [Dense(readout), Pooled("boxes", readout), Pooled("masks", readout)]
        features = self.model.encode(pixels, requests, boxes=boxes, masks=masks)

        classes = self.class_embeddings.to(device)
        sizes = [len(sample.labels) for sample in samples]
        found: list[tuple[Any, dict[Readout, ReadoutRows]]] = [(key, {}) for key, _ in batch]
        for readout in self.readouts:
            by_box = features[Pooled("boxes", readout)].float().split(sizes)
            by_mask = features[Pooled("masks", readout)].float().split(sizes)
            for i, sample in enumerate(samples):
                similar = torch.einsum("kc,chw->khw", classes, features[Dense(readout)][i].float())
                place = RegionPlaces.of(sample, masks[i], boxes[i])
                found[i][1][readout] = ReadoutRows(
                    labels=np.asarray(sample.labels),
                    boxes=_is_right(by_box[i] @ classes.T, place.labels),
                    masks=_is_right(by_mask[i] @ classes.T, place.labels),
                    above=place.above(similar),
                    **place.overlaps(similar),
                )
        return found


@dataclass(frozen=True)
class RegionPlaces:
    """Where the regions of one image are on the map.

    Attributes:
        labels: (n,).
        inside, around: bool (n, h, w), positions of each mask, and of its surroundings.
        annotation: int64 (h, w), class of each position; -1 where no mask is.
    """

    labels: Tensor
    inside: Tensor
    around: Tensor
    annotation: Tensor

    @classmethod
    def of(cls, sample: Any, masks: Tensor, boxes: Tensor) -> "RegionPlaces":
        """Place the regions of a RegionSample; masks (n, h, w) and boxes (n, 4) on one device."""
        inside = masks.bool()
        labels = sample.labels.to(masks.device)

        # A position of the same class is no surrounding, nor is the padding of the image.
        same_class = (labels[:, None] == labels).float()
        own = (same_class @ inside.flatten(1).float()).view(inside.shape) > 0
        around = _windows(boxes, inside.shape[1:]) & ~own & _image_area(sample.image, inside)

        annotation = labels.new_full(inside.shape[1:], -1)
        for i in inside.sum((1, 2)).argsort(descending=True).tolist():
            annotation[inside[i]] = labels[i]
        return cls(labels, inside, around, annotation)

    def above(self, similar: Tensor) -> np.ndarray:
        """Compare similarities (K, h, w) inside and around each region: (n,) of 1, 0 and nan."""
        own = similar[self.labels]  # (n, h, w)
        within = _mean(own, self.inside)
        outside = _mean(own, self.around)
        found = (within > outside).float()
        found[within.isnan() | outside.isnan()] = torch.nan
        return found.cpu().numpy()

    def overlaps(self, similar: Tensor) -> dict[str, np.ndarray]:
        """Count positions by class: `classes` and `counts` of `ReadoutRows`."""
        annotated = self.annotation >= 0
        truth = self.annotation[annotated]
        predicted = similar.argmax(0)[annotated]
        size = len(similar)
        agreed = truth[truth == predicted].bincount(minlength=size)
        counts = torch.stack(
            [agreed, predicted.bincount(minlength=size), truth.bincount(minlength=size)], -1
        )  # (K, 3)
        classes = counts.sum(-1).nonzero()[:, 0]
        return {"classes": classes.cpu().numpy(), "counts": counts[classes].cpu().numpy()}


def _windows(boxes: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the positions whose centre is in each box enlarged by `AROUND`: bool (n, h, w)."""
    height, width = grid
    x0, y0, x1, y1 = boxes.unbind(-1)
    more_x = (x1 - x0) * AROUND
    more_y = (y1 - y0) * AROUND
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    inside_x = (x >= (x0 - more_x)[:, None]) & (x <= (x1 + more_x)[:, None])  # (n, w)
    inside_y = (y >= (y0 - more_y)[:, None]) & (y <= (y1 + more_y)[:, None])  # (n, h)
    return inside_y[:, :, None] & inside_x[:, None, :]


def _image_area(image: Tensor, inside: Tensor) -> Tensor:
    """Return the positions before the black padding at the right and bottom: bool (h, w)."""
    height, width = inside.shape[1:]
    side = image.shape[-1]
    lit_rows = (image.amax((0, 2)) > 0).nonzero()
    lit_columns = (image.amax((0, 1)) > 0).nonzero()
    rows = int(lit_rows.max()) + 1 if len(lit_rows) else side
    columns = int(lit_columns.max()) + 1 if len(lit_columns) else side

    y = torch.arange(height, device=inside.device) + 0.5
    x = torch.arange(width, device=inside.device) + 0.5
    return (y < rows * height / side)[:, None] & (x < columns * width / side)[None]


def _mean(values: Tensor, places: Tensor) -> Tensor:
    """Average (n, h, w) over places: (n,), nan where there is no place."""
    return (values * places).sum((1, 2)) / places.sum((1, 2))


def _is_right(scores: Tensor, labels: Tensor) -> np.ndarray:
    return (label_ranks(scores, labels) == 0).cpu().numpy()


def _summary(images: Sequence[ReadoutRows]) -> dict[str, float]:
    labels = np.concatenate([image.labels for image in images])
    above = np.concatenate([image.above for image in images])
    known = above[~np.isnan(above)]

    totals: dict[int, np.ndarray] = {}
    for image in images:
        for name, counts in zip(image.classes.tolist(), image.counts, strict=True):
            totals[name] = totals.get(name, 0) + counts
    overlaps = [
        both / (predicted + true - both) for both, predicted, true in totals.values() if true
    ]
    return {
        "boxes.mAcc1": mean_class_accuracy(np.concatenate([r.boxes for r in images]), labels),
        "masks.mAcc1": mean_class_accuracy(np.concatenate([r.masks for r in images]), labels),
        "mIoU": float(np.mean(overlaps)) if overlaps else float("nan"),
        "sign": float(known.mean()) if len(known) else float("nan"),
    }

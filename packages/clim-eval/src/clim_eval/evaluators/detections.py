"""A detector over a data set of pictures, and its detections as records of COCO."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from clim_data import BrokenSample, SampleWarning
from clim_data.pixels import encode_mask, xyxy_to_xywh
from clim_models.detection import Detections
from torch import Tensor

from clim_eval.evaluators.sharing import EvaluationLoading, ItemLists, Items, progress_bar

BATCH_SIZE = 4


class Detector(Protocol):
    """The interface of a detector."""

    def detect(self, pictures: Sequence[Tensor]) -> list[Detections]: ...


class Picture(NamedTuple):
    """A picture of a data set.

    image_id: as in the annotations. name: of its file. pixels: uint8 RGB (3, height, width).
    warning: a warning about its frame, or None.
    """

    image_id: Any
    name: str
    pixels: Tensor
    warning: SampleWarning | None = None


class FoundObjects(NamedTuple):
    """A picture and its detections, on the CPU."""

    picture: Picture
    found: Detections


def detect_pictures(
    detector: Detector,
    data: Items,
    places: Sequence[int],
    loading: EvaluationLoading,
    *,
    min_score: float = 0.0,
) -> Iterator[FoundObjects | BrokenSample]:
    """Run a detector over some items of a data set, in their order.

    Args:
        detector: of `clim_models.detection`.
        data: its items are `Picture`s, or the `BrokenSample` of an unusable image.
        places: which items.
        loading: batch size, workers and progress bar.
        min_score: boxes with a lower score are dropped.
    """
    batches = ItemLists(data, places, loading.batch_size or BATCH_SIZE, loading.workers)
    for batch in progress_bar(batches, len(batches), "batches of images", loading.progress):
        pictures = [item for item in batch if isinstance(item, Picture)]
        found = iter(detector.detect([one.pixels for one in pictures]) if pictures else ())
        for item in batch:
            if isinstance(item, Picture):
                yield FoundObjects(item, _best(next(found), min_score))
            else:
                yield item


def coco_results(
    objects: FoundObjects, category_ids: Sequence[Any], *, masks: bool = True
) -> list[dict[str, Any]]:
    """Return COCO results of a picture: `image_id`, `category_id`, `bbox`, `score`.

    Args:
        objects: boxes XYXY in pixels become x, y, width, height.
        category_ids: by label.
        masks: whether masks, if there are any, become `segmentation` (RLE).
    """
    found = objects.found
    segmentations = found.masks.numpy() if masks and found.masks is not None else None
    boxes = [xyxy_to_xywh(box) for box in found.boxes.tolist()]
    records = []
    for row, (label, score) in enumerate(
        zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    ):
        record = {
            "image_id": objects.picture.image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in boxes[row]],
            # Scores of rare classes may be small, and ties change the order.
            "score": float(f"{score:.7g}"),
        }
        if segmentations is not None:
            record["segmentation"] = encode_mask(segmentations[row])
        records.append(record)
    return records


def _best(found: Detections, min_score: float) -> Detections:
    """Drop boxes below a score, and copy the others to the CPU."""
    rows = found.scores >= min_score
    masks = None if found.masks is None else found.masks[rows].cpu()
    return Detections(
        found.boxes[rows].cpu(), found.scores[rows].cpu(), found.labels[rows].cpu(), masks
    )

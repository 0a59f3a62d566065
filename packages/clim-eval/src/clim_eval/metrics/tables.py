"""Annotations and detections of many images as arrays.

Letters: N detections or annotations, K categories.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from clim_data import BrokenSample
from clim_data.pixels import check_run_texts, check_segmentation
from pycocotools import mask as rle_masks

IOU_TYPES = ("bbox", "segm")


def check_iou_type(iou_type: str) -> None:
    """Refuse an unknown IoU type.

    Raises:
        ValueError: it is neither "bbox" nor "segm".
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type={iou_type!r} is not known: choose from {', '.join(IOU_TYPES)}")


@dataclass(frozen=True)
class Objects:
    """Boxes or masks of many images.

    Attributes:
        images: int64 (N,), rows of the images.
        labels: int64 (N,), places of the categories.
        boxes: float64 (N, 4), x, y, width, height in pixels.
        areas: float64 (N,), square pixels.
        masks: (N,) segmentations as the file has them, None where boxes are compared.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    masks: Sequence[Any] | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Objects":
        """Return some of the objects."""
        masks = None if self.masks is None else [self.masks[row] for row in rows.tolist()]
        return Objects(
            self.images[rows], self.labels[rows], self.boxes[rows], self.areas[rows], masks
        )


@dataclass(frozen=True)
class TruthTable:
    """The annotations of a file.

    Attributes:
        names: of the K categories, in the order of the file.
        label_of: place of each category by its id.
        row_of: row of each image by its id, in the order of the ids: it decides between detections
            of one score.
        sizes: (height, width) of each image; (0, 0) where the file gives none.
        objects: the annotations.
        ignored: bool (N,), annotations that neither count nor make a detection wrong.
        crowd: bool (N,), regions that any number of detections may lie in.
        iou_type: "bbox" or "segm".
    """

    names: tuple[str, ...]
    label_of: Mapping[Any, int]
    row_of: Mapping[Any, int]
    sizes: np.ndarray
    objects: Objects
    ignored: np.ndarray
    crowd: np.ndarray
    iou_type: str

    @classmethod
    def of(cls, truth: Mapping[str, Any], iou_type: str, *, crowds: bool = True) -> "TruthTable":
        """Make the table of the contents of a COCO or LVIS annotation file.

        Args:
            truth: contents of the file.
            iou_type: "bbox" or "segm".
            crowds: `iscrowd` marks crowds, as in COCO; False reads `ignore` alone, as LVIS does.

        Raises:
            ValueError: an unknown IoU type, no category, or an annotation of an image or category
                that the file does not have.
        """
        check_iou_type(iou_type)
        categories = truth["categories"]
        if not categories:
            raise ValueError("the annotations have no category: pass a whole COCO file")

        images = sorted(truth["images"], key=lambda image: image["id"])
        row_of = {image["id"]: row for row, image in enumerate(images)}
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        sizes = [(image.get("height") or 0, image.get("width") or 0) for image in images]
        annotations = truth["annotations"]
        flag = "iscrowd" if crowds else "ignore"
        ignored = np.array([bool(one.get(flag, 0)) for one in annotations], dtype=bool)
        return cls(
            names=tuple(str(category["name"]) for category in categories),
            label_of=label_of,
            row_of=row_of,
            sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
            objects=_annotated(annotations, row_of, label_of, iou_type),
            ignored=ignored,
            crowd=ignored if crowds else np.zeros_like(ignored),
            iou_type=iou_type,
        )


@dataclass(frozen=True)
class ResultTable:
    """Detections of the images of a `TruthTable`.

    Attributes:
        objects: the detections, in the order of the file.
        scores: float64 (N,).
    """

    objects: Objects
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: np.ndarray) -> "ResultTable":
        """Return some of the detections."""
        return ResultTable(self.objects.take(rows), self.scores[rows])

    @classmethod
    def of(
        cls, detections: Iterable[Mapping[str, Any]], truth: TruthTable, *, box_areas: bool = False
    ) -> "ResultTable":
        """Make the table of COCO results, which may be a stream.

        Args:
            detections: `image_id`, `category_id`, `score`, and `bbox` (x, y, width, height) or
                `segmentation` (RLE), as `truth.iou_type` says.
            truth: the annotations that they are compared with.
            box_areas: a mask with a box has the area of the box, as for LVIS.

        Raises:
            ValueError: a detection of an image or category that the annotations do not have, one
                without score, box or mask, or one whose numbers make no box or mask.
        """
        images, labels, scores, boxes = array("q"), array("q"), array("d"), array("d")
        masks: list[Any] | None = [] if truth.iou_type == "segm" else None
        for place, one in enumerate(detections, 1):
            try:
                image, category, score = one["image_id"], one["category_id"], one["score"]
                if bool in (type(image), type(category), type(score)):
                    raise TypeError("a truth value is no number")
                images.append(truth.row_of[image])
                labels.append(truth.label_of[category])
                scores.append(score)
                has_box = masks is None or (box_areas and "bbox" in one)
                left, top, width, height = one["bbox"] if has_box else _NO_BOX
                boxes.extend((left, top, width, height))
                if masks is not None:
                    masks.append(one["segmentation"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(_fault(place, one, truth)) from error

        objects = _objects(images, labels, boxes, masks)
        found = cls(objects, np.array(scores, dtype=float))
        _check_numbers(found)
        if objects.masks is not None:
            check_masks(objects, truth)
            _fill_areas(objects, truth)
        return found


# The squares of larger numbers are none; clim-data's rule for boxes is the same.
LARGEST_SIDE = 1e12
_NO_BOX = (0.0, 0.0, -1.0, -1.0)
_FIX_MASK = "write masks as COCO's run lengths of the whole image"
# Masks that are checked at a time: more would not fit the caches of a processor.
_TEXTS = 64


def to_rle(segmentation: Any, size: tuple[int, int]) -> Any:
    """Return a segmentation, polygons or RLE, as compressed RLE of an image of (height, width)."""
    height, width = size
    if isinstance(segmentation, list):
        return rle_masks.merge(rle_masks.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle_masks.frPyObjects(segmentation, height, width)
    return segmentation


def _annotated(
    annotations: Iterable[Mapping[str, Any]],
    row_of: Mapping[Any, int],
    label_of: Mapping[Any, int],
    iou_type: str,
) -> Objects:
    images, labels, boxes, areas = array("q"), array("q"), array("d"), array("d")
    masks: list[Any] | None = [] if iou_type == "segm" else None
    for one in annotations:
        image, category = one.get("image_id"), one.get("category_id")
        if image not in row_of or category not in label_of:
            raise ValueError(
                f"an annotation is of image {image!r} and category {category!r}, which the file "
                "does not have: pass a whole COCO file"
            )
        box = one.get("bbox", (0.0, 0.0, 0.0, 0.0))
        images.append(row_of[image])
        labels.append(label_of[category])
        boxes.extend(box)
        areas.append(one["area"] if "area" in one else box[2] * box[3])
        if masks is not None:
            if not one.get("segmentation"):
                raise ValueError(
                    f"annotation {one.get('id')} has no segmentation, which masks are compared "
                    "with: add it, or score boxes only (--iou-types bbox)"
                )
            masks.append(one["segmentation"])
    return _objects(images, labels, boxes, masks, np.array(areas, dtype=float))


def _objects(
    images: array, labels: array, boxes: array, masks: list | None, areas: np.ndarray | None = None
) -> Objects:
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    return Objects(
        np.array(images, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        corners,
        corners[:, 2] * corners[:, 3] if areas is None else areas,
        masks,
    )


def _fill_areas(objects: Objects, truth: TruthTable) -> None:
    """Set the areas of masks that have no box that says it."""
    assert objects.masks is not None
    for row in np.flatnonzero(objects.boxes[:, 2] < 0).tolist():
        height, width = truth.sizes[objects.images[row]].tolist()
        rle = to_rle(objects.masks[row], (height, width))
        objects.areas[row] = float(rle_masks.area(rle))


def check_masks(objects: Objects, truth: TruthTable) -> None:
    """Check the masks of detections before any other code sees them.

    Raises:
        ValueError: a mask is of another size than its image, or its runs or polygons make none.
    """
    assert objects.masks is not None
    sizes = truth.sizes[objects.images].tolist()
    rows: list[int] = []
    texts: list[bytes] = []
    pixels: list[int] = []
    for row, (mask, known) in enumerate(zip(objects.masks, sizes, strict=True)):
        size = known if known[0] else _own_size(mask)
        counts = mask.get("counts") if isinstance(mask, dict) else None
        if isinstance(counts, str | bytes) and mask.get("size") == size:
            rows.append(row)
            texts.append(counts.encode(errors="replace") if isinstance(counts, str) else counts)
            pixels.append(size[0] * size[1])
            continue
        try:
            check_segmentation(mask, (size[0], size[1]), f"detection {row + 1}")
        except BrokenSample as fault:
            raise ValueError(f"{fault}; {_FIX_MASK}") from None

    # Many at a time: one by one they would take longer than their scores.
    for first in range(0, len(rows), _TEXTS):
        part = slice(first, first + _TEXTS)
        wrong = check_run_texts(texts[part], np.array(pixels[part], dtype=np.int64))
        if wrong:
            place = min(wrong)
            raise ValueError(
                f"detection {rows[first + place] + 1}: bad segmentation: {wrong[place]}; "
                f"{_FIX_MASK}"
            )


def _own_size(mask: Any) -> list[int]:
    """Return the (height, width) that a mask states, for images whose size the file leaves out."""
    stated = mask.get("size") if isinstance(mask, dict) else None
    if isinstance(stated, list) and len(stated) == 2 and {int}.issuperset(map(type, stated)):
        return stated
    return [0, 0]


def _check_numbers(found: ResultTable) -> None:
    boxes = found.objects.boxes
    sound = np.isfinite(found.scores) & (np.abs(boxes) < LARGEST_SIDE).all(axis=1)
    if found.objects.masks is None:
        sound &= (boxes[:, 2:] >= 0).all(axis=1)
    if sound.all():
        return
    row = int(np.flatnonzero(~sound)[0])
    raise ValueError(
        f"detection {row + 1} has the score {found.scores[row]:g} and the bbox "
        f"{boxes[row].tolist()}: write finite numbers, and bbox as x, y, width, height in pixels"
    )


def _fault(place: int, one: Any, truth: TruthTable) -> str:
    """Say what a detection lacks."""
    if not isinstance(one, Mapping):
        return f"detection {place} is {one!r}: write an object with image_id, category_id and score"
    shape = "bbox" if truth.iou_type == "bbox" else "segmentation"
    lacking = [name for name in ("image_id", "category_id", "score", shape) if name not in one]
    if lacking:
        return f"detection {place} has no {', '.join(lacking)}: write COCO results"
    image, category = one["image_id"], one["category_id"]
    if _is_in(image, truth.row_of) and _is_in(category, truth.label_of):
        return (
            f"detection {place} has the score {one['score']!r} and the bbox {one.get('bbox')!r}: "
            "write COCO results with numbers, bbox as x, y, width, height"
        )
    return (
        f"a detection is of image {image!r} and category {category!r}, which the annotations do "
        "not have: map labels to category ids by name, and pass the file of the same pictures"
    )


def _is_in(value: Any, known: Mapping[Any, int]) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value in known

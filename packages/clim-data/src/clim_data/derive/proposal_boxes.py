"""Class-agnostic boxes: the choice among candidates, the writer, and the reader of a detector's
results.

Boxes are XYXY in pixels of the stored image; N counts candidates.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clim_data.annotations.box_rules import check_box
from clim_data.annotations.ids import Key, id_key, key_of, need_object, record_name, shorten
from clim_data.annotations.tables import ImageTable, with_sizes
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json

CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]


@dataclass(frozen=True)
class BoxChoice:
    """Rules for the choice among candidates.

    Args:
        top: maximum number of boxes per image, the best first.
        min_score: candidates with a lower score are dropped.
        nms: of two candidates with a larger IoU the worse is dropped; 1 drops none.
        min_px: smallest width and height in pixels.

    Raises:
        ValueError: an option is out of range.
    """

    top: int = 50
    min_score: float = float("-inf")
    nms: float = 0.7
    min_px: float = 8.0

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top={self.top} must be at least 1")
        if not 0 < self.nms <= 1:
            raise ValueError(f"nms={self.nms} must be an IoU in (0, 1]; 1 keeps all")
        if self.min_px < 0:
            raise ValueError(f"min_px={self.min_px} must be at least 0 pixels")

    def options(self) -> dict[str, Any]:
        """Return the choice as plain json values."""
        return {
            name: None if value == float("-inf") else value for name, value in asdict(self).items()
        }

    def __call__(
        self, boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose boxes (n, 4) and scores (n,) of (N, 4) and (N,), best first.

        Boxes are clipped to the image of (height, width). Equal scores keep their order.
        Coordinates are rounded to tenths of a pixel, scores to 4 digits.
        """
        import torch  # here, so that the command line starts at once
        from torchvision.ops import nms

        boxes, scores = (
            np.asarray(boxes, np.float64).reshape(-1, 4),
            np.asarray(scores, np.float64).reshape(-1),
        )
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        boxes, scores = boxes[finite], scores[finite]
        height, width = size
        boxes = boxes.clip(0, [width, height, width, height]).round(1)
        sides = boxes[:, 2:] - boxes[:, :2]
        large = (sides >= max(self.min_px, 0.1)).all(axis=1)
        order = np.argsort(-scores, kind="stable")
        order = order[(large & (scores >= self.min_score))[order]]
        if self.nms < 1:
            # Ranks as scores: torchvision's order among equal scores is not fixed.
            ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
            order = order[nms(torch.from_numpy(boxes[order]), ranks, self.nms).numpy()]
        order = order[: self.top]
        return boxes[order], scores[order].round(4)


def box_records(image_id: int, boxes: np.ndarray, scores: np.ndarray) -> list[dict]:
    """Make COCO annotations, without ids, of boxes (n, 4) XYXY in pixels with scores (n,)."""
    records = []
    for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        bbox = [_short(x1), _short(y1), _short(x2 - x1), _short(y2 - y1)]
        more = {"area": _short(bbox[2] * bbox[3]), "iscrowd": 0, "score": score}
        records.append({"image_id": image_id, "category_id": 1, "bbox": bbox, **more})
    return records


def _short(value: float) -> float | int:
    value = round(value, 1)
    return int(value) if value == int(value) else value


def read_result_images(path: str | Path, skipped: SkipReport) -> list[dict]:
    """Read id, file_name, height and width of the images of a COCO json.

    Images that cannot be used are counted and named in `skipped`.

    Raises:
        FileNotFoundError, ValueError: no such json, or its list of images is refused.
    """
    records = [image for name, image in stream_json(path) if name == "images"]
    if not records:
        raise ValueError(f'{path} has no usable "images": give the COCO json of the images')
    table = with_sizes(ImageTable.of(records, Path(path).name, skipped.add), skipped.add)
    images = []
    for image in table.values():
        height, width = image.size or (0, 0)
        images.append({"id": image.id, "file_name": image.name, "height": height, "width": width})
    if not images:
        raise ValueError(f'{path} has no usable "images": give the COCO json of the images')
    return images


def read_results(
    path: str | Path, images: list[dict], choice: BoxChoice, skipped: SkipReport
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield boxes (n, 4) and scores (n,) of each image, from a COCO results json.

    The json is a list of {image_id, bbox XYWH, score, ...}. Classes do not matter. Results of
    images that are not listed, and those without a usable box and score, are named in `skipped`.

    Raises:
        FileNotFoundError, ValueError: no such json, or it is no list of results.
    """
    file = Path(path).name
    found: dict[Key, array] = {}
    sizes: dict[Key, tuple[int, int]] = {}
    for image in images:
        key = key_of(image)
        found[key], sizes[key] = array("d"), (image["height"], image["width"])

    results = tqdm(
        stream_json(path), desc=f"reading {Path(path).name}", unit="box", unit_scale=True, delay=2
    )
    for place, (name, result) in enumerate(results):
        if name:
            raise ValueError(
                f"{path} is no COCO results file: give a json list of {{image_id, bbox, score}}"
            )
        try:
            key, values = _scored_box(result, sizes)
        except BrokenSample as fault:
            shown = record_name(file, "result", place, result)
            if isinstance(result, dict):
                shown += f" of image {result.get('image_id')}"
            skipped.add(BrokenSample(fault.reason, shown, fault.detail))
            continue
        found[key].extend(values)

    for image in images:
        rows = np.array(found.pop(key_of(image))).reshape(-1, 5)
        yield choice(rows[:, :4], rows[:, 4], (image["height"], image["width"]))


def _scored_box(
    given: Any, sizes: Mapping[Key, tuple[int, int]]
) -> tuple[Key, tuple[float, float, float, float, float]]:
    """Return the image's key and (x1, y1, x2, y2, score) of a result."""
    result = need_object(given)
    key = id_key(result.get("image_id"))
    if key is None or key not in sizes:
        raise BrokenSample("box without image", "", f"image_id {shorten(result.get('image_id'))}")
    box, _ = check_box(result.get("bbox"), sizes[key])
    score = result.get("score")
    if not isinstance(score, int | float) or not abs(score) < float("inf"):
        raise BrokenSample("no score", "", f"score is {shorten(score)}, not a finite number")
    return key, (*box, float(score))

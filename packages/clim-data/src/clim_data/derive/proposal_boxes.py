"""Class-agnostic boxes: which of many candidates stay, how they are written, and how a detector's
results are read.

Boxes are XYXY in pixels of the stored image; N counts candidates.
"""

from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json
from clim_data.files.names import image_file_name, leads_out

CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]


@dataclass(frozen=True)
class BoxChoice:
    """Which candidates stay.

    Args:
        top: at most so many an image, the best first.
        min_score: candidates below it go.
        nms: of two candidates with a larger IoU the worse goes; 1 keeps all.
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
        """The choice as plain json values."""
        return {
            name: None if value == float("-inf") else value for name, value in asdict(self).items()
        }

    def __call__(
        self, boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and scores (n,) that stay of (N, 4) and (N,), best first, inside an image of
        (height, width).

        Equal scores keep their order. Coordinates are rounded to tenths of a pixel, scores to 4
        digits.
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
    """COCO annotations, without ids, of boxes (n, 4) XYXY in pixels with scores (n,)."""
    records = []
    for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        bbox = [_short(x1), _short(y1), _short(x2 - x1), _short(y2 - y1)]
        more = {"area": _short(bbox[2] * bbox[3]), "iscrowd": 0, "score": score}
        records.append({"image_id": image_id, "category_id": 1, "bbox": bbox, **more})
    return records


def _short(value: float) -> float | int:
    value = round(value, 1)
    return int(value) if value == int(value) else value


def read_images(path: str | Path, skipped: SkipReport) -> list[dict]:
    """id, file_name, height and width of the images of a COCO json; names that lead out of their
    folder are skipped.

    Raises:
        FileNotFoundError, ValueError: no such json, or its images have no id, height or width.
    """
    images = []
    for name, image in stream_json(path):
        if name != "images":
            continue
        try:
            file_name = str(image_file_name(image))
            if leads_out(file_name):
                raise BrokenSample("path outside the folder", file_name, f"image {image['id']}")
            size = {side: int(image[side]) for side in ("height", "width")}
            images.append({"id": image["id"], "file_name": file_name, **size})
        except BrokenSample as fault:
            skipped.add(fault)
        except (KeyError, TypeError, AttributeError) as fault:
            raise ValueError(
                f"an image of {path} is not as in COCO ({fault!r}): give the images' json"
            ) from None
    if not images:
        raise ValueError(f'{path} has no usable "images": give the COCO json of the images')
    if len({image["id"] for image in images}) < len(images):
        raise ValueError(f"{path} has an image id twice: give every image an id of its own")
    return images


def read_results(
    path: str | Path, images: list[dict], choice: BoxChoice, skipped: SkipReport
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Boxes (n, 4) and scores (n,) of each image, from a COCO results json [{image_id, bbox XYWH,
    score, ...}].

    Classes do not matter; results of images that are not listed, and those that are no box, are
    named in `skipped`.

    Raises:
        FileNotFoundError, ValueError: no such json, or it is no list of results.
    """
    found: dict[int, array] = {image["id"]: array("d") for image in images}
    results = tqdm(
        stream_json(path), desc=f"reading {Path(path).name}", unit="box", unit_scale=True, delay=2
    )
    for number, (name, result) in enumerate(results):
        if name or not isinstance(result, dict):
            raise ValueError(
                f"{path} is no COCO results file: give a json list of {{image_id, bbox, score}}"
            )
        try:
            x, y, w, h = map(float, result["bbox"])
            values = found[result["image_id"]], (x, y, x + w, y + h, float(result["score"]))
        except (KeyError, TypeError, ValueError) as fault:
            unknown = "image_id" in result and "bbox" in result and result["image_id"] not in found
            reason = "unknown image" if unknown else "no scored box"
            skipped.add(
                BrokenSample(
                    reason, f"result {number}", f"image {result.get('image_id')}: {fault!r}"
                )
            )
            continue
        values[0].extend(values[1])
    for image in images:
        rows = np.array(found.pop(image["id"])).reshape(-1, 5)
        yield choice(rows[:, :4], rows[:, 4], (image["height"], image["width"]))

"""Boxes without trained weights: selective search of OpenCV's contrib modules, ranked by agreement.

Uijlings et al. 2013, "Selective search for object recognition". OpenCV's own order is nearly random
among the first boxes. Here, the score of a box is the number of candidates at nearly the same
place, which come from other segmentations and similarities. This ranking doubles the recall of the
first 20 boxes, and takes little time compared with the search.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

AGREEMENT_IOU = 0.7
LEAST_PX = 16


@dataclass(frozen=True)
class SelectiveSearch:
    """Finds boxes in images of any size, one image at a time, in worker processes.

    Args:
        search_px: longest side in pixels at which the image is searched. A larger side takes longer
            and finds smaller objects.
        quality: search with the slow settings (more colour spaces and segmentations).

    Raises:
        ValueError: `search_px` is out of range. ImportError: OpenCV's contrib modules are missing.
    """

    search_px: int = 320
    quality: bool = False
    batch_size = 1
    in_processes = True

    def __post_init__(self) -> None:
        if self.search_px < LEAST_PX:
            raise ValueError(f"search_px={self.search_px} must be at least {LEAST_PX}")
        _segmentation()

    def options(self) -> dict[str, Any]:
        """Return the options that decide the boxes, as plain json values."""
        return {"method": "selective-search", **asdict(self)}

    def __call__(self, images: Sequence[Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find candidates in RGB images.

        Returns:
            Boxes (N, 4) XYXY in pixels of each image, and scores (N,) in (0, 1], which compare
            boxes of one image only.
        """
        return [self._search(image) for image in images]

    def _search(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        scale = min(1.0, self.search_px / max(image.size))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        if min(size) < LEAST_PX:  # OpenCV's segmentation needs some pixels
            return np.zeros((0, 4)), np.zeros(0)

        small = image if size == image.size else image.resize(size, Image.Resampling.BOX)
        search = _segmentation()
        search.setBaseImage(np.ascontiguousarray(np.asarray(small)[..., ::-1]))  # BGR
        if self.quality:
            search.switchToSelectiveSearchQuality()
        else:
            search.switchToSelectiveSearchFast()
        found = np.asarray(search.process(), np.float64).reshape(-1, 4)

        # OpenCV shuffles the boxes. Sorted, large ones first, they are the same in every run.
        found = found[np.lexsort((*found.T, -found[:, 2] * found[:, 3]))]
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
        shrunk = np.array(size) / np.array(image.size)
        return boxes / np.tile(shrunk, 2), agreement(boxes)


def agreement(boxes: np.ndarray, iou: float = AGREEMENT_IOU) -> np.ndarray:
    """Count how many of the boxes (N, 4) overlap each box with more than `iou`.

    Returns:
        The counts divided by the largest one: (N,).
    """
    import torch
    from torchvision.ops import box_iou

    if not len(boxes):
        return np.zeros(0)
    every = torch.from_numpy(boxes).float()
    counts = torch.cat([(box_iou(part, every) > iou).sum(1) for part in every.split(1024)])
    return (counts / counts.max()).numpy()


def _segmentation() -> Any:
    """Return a new search that runs in one thread."""
    try:
        import cv2

        create = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation
    except (ImportError, AttributeError) as fault:
        raise ImportError(
            f"selective search needs the contrib modules of OpenCV ({fault}): pip install "
            "opencv-contrib-python-headless; "
            "another opencv-python package must be uninstalled first, they share one folder"
        ) from None
    cv2.setNumThreads(1)  # the worker processes use the cores
    return create()

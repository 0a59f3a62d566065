"""Average precision of detectors: all pictures of a class at once against the evaluators of COCO
and LVIS, which go picture by picture.

The pictures are synthetic: boxes of 80 or 1,203 classes, and detections near them or anywhere.
"""

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import side_by_side as sbs
import torch
from clim_eval.metrics import category_precision, lvis_ap
from torch import Tensor

TOLERANCE = 1e-12
SIDE = 640
Tables = tuple[dict[str, Any], list[dict[str, Any]]]


@cache
def synthetic(images: int, classes: int, of_image: int) -> Tables:
    """Contents of an annotation file with about 7 boxes a picture, and COCO results with
    `of_image` detections a picture, a third of them near a true box."""
    rng = np.random.default_rng(0)
    number = rng.integers(1, 14, images)
    owners = np.repeat(np.arange(images), number)
    labels = (classes * rng.random(len(owners)) ** 2).astype(int)
    boxes = draw_boxes(rng, len(owners))
    truth = {
        "images": [image_record(rng, i, classes) for i in range(images)],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(owners[row]),
                "category_id": int(labels[row]) + 1,
                "bbox": boxes[row].tolist(),
                "area": float(boxes[row, 2] * boxes[row, 3]),
                "iscrowd": int(row % 100 == 0),
            }
            for row in range(len(owners))
        ],
        "categories": [
            {"id": n + 1, "name": f"class {n}", "frequency": "rcf"[n % 3]} for n in range(classes)
        ],
    }
    return truth, results(rng, images, (owners, labels, boxes), classes, of_image)


def draw_boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """(number, 4) x, y, width, height inside the picture, small ones more often."""
    sides = SIDE * (0.02 + 0.6 * rng.random((number, 2)) ** 2)
    return np.concatenate([rng.random((number, 2)) * (SIDE - sides), sides], axis=1).round(2)


def image_record(rng: np.random.Generator, number: int, classes: int) -> dict[str, Any]:
    absent = (rng.integers(0, classes, 12) + 1).tolist()
    size = {"height": SIDE, "width": SIDE}
    return {
        "id": number,
        **size,
        "neg_category_ids": absent,
        "not_exhaustive_category_ids": absent[:1],
    }


def results(
    rng: np.random.Generator, images: int, truth: Sequence[np.ndarray], classes: int, of_image: int
) -> list[dict[str, Any]]:
    owners, labels, boxes = truth
    starts = np.searchsorted(owners, np.arange(images + 1))
    found = []
    for image in range(images):
        own = rng.integers(starts[image], starts[image + 1], of_image)
        near = rng.random(of_image) < 1 / 3
        moved = boxes[own] + rng.normal(0, 0.08, (of_image, 4)) * boxes[own][:, [2, 3, 2, 3]]
        places = np.where(near[:, None], moved, draw_boxes(rng, of_image)).clip(0.5).round(2)
        classes_of = np.where(near, labels[own], rng.integers(0, classes, of_image)) + 1
        scores = np.where(near, rng.beta(2, 2, of_image), rng.beta(1, 4, of_image)).round(4)
        found += [
            {"image_id": image, "category_id": category, "bbox": place, "score": score}
            for category, place, score in zip(
                classes_of.tolist(), places.tolist(), scores.tolist(), strict=True
            )
        ]
    return found


def ours_on_coco(*sizes: int) -> Callable[[], Tensor]:
    """-> function that returns AP of each class over IoU 0.50 to 0.95, (10, K)."""
    truth, detections = synthetic(*sizes)
    return lambda: torch.from_numpy(category_precision(truth, detections).average.copy())


def pycocotools_on_coco(*sizes: int) -> Callable[[], Tensor]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, detections = synthetic(*sizes)

    def run() -> Tensor:
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = COCO()
            # It writes into what it is given.
            annotations.dataset = {**truth, "annotations": copy.deepcopy(truth["annotations"])}
            annotations.createIndex()
            evaluation = COCOeval(annotations, annotations.loadRes(detections), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        return torch.from_numpy(np.where(precision < 0, np.nan, precision).mean(axis=1))

    return run


def ours_on_lvis(*sizes: int) -> Callable[[], Tensor]:
    """-> function that returns AP, AP50, AP75 and the APs of sizes and frequencies, (9,)."""
    truth, detections = synthetic(*sizes)

    def run() -> Tensor:
        found = lvis_ap(truth, detections, iou_type="bbox")
        names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
        return torch.tensor([found[f"bbox.{name}"] for name in names], dtype=torch.float64)

    return run


def lvis_package(*sizes: int) -> Callable[[], Tensor]:
    from lvis import LVIS, LVISEval, LVISResults

    truth, detections = synthetic(*sizes)
    logging.disable(logging.WARNING)
    # The package asks for a name that numpy 1.24 removed.
    np.__dict__.setdefault("float", float)

    def run() -> Tensor:
        annotations = LVIS.__new__(LVIS)
        # Its constructor takes the path of a file only.
        annotations.logger = logging.getLogger("lvis")
        annotations.dataset = {**truth, "annotations": copy.deepcopy(truth["annotations"])}
        annotations._create_index()
        found = LVISResults(annotations, copy.deepcopy(detections))
        evaluation = LVISEval(annotations, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
        values = [evaluation.results[name] for name in names]
        return torch.tensor(values, dtype=torch.float64)

    return run


def agree(ours: Tensor, other: Tensor) -> dict[str, float]:
    """Compare with nan where the other has nan."""
    if not torch.equal(ours.isnan(), other.isnan()):
        raise ValueError("other classes are without annotation: not the same work")
    return sbs.largest_difference(ours.nan_to_num(), other.nan_to_num(), TOLERANCE)


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3, threads=1)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of a picture")
    parser.add_argument(
        "--lvis",
        action="store_true",
        help="compare with the package lvis, too: pip install --no-deps lvis",
    )
    parser.add_argument("--lvis-images", type=int, default=1000, help="the package takes minutes")
    args = parser.parse_args(argv)
    # Before the minutes of COCO.
    if args.lvis and find_spec("lvis") is None:
        parser.error("--lvis needs the package lvis: pip install --no-deps lvis")
    coco, lvis = (args.images, 80), (args.lvis_images, 1203)
    sides = [("COCO", coco, ours_on_coco, ("pycocotools", pycocotools_on_coco))]
    if args.lvis:
        sides.append(("LVIS", lvis, ours_on_lvis, ("lvis", lvis_package)))

    comparisons = []
    for name, (images, classes), build, (label, build_other) in sides:
        sizes = (images, classes, args.detections)
        comparisons.append(
            sbs.Comparison(
                f"AP of {name}",
                f"{images:,} images, {args.detections} boxes each, {classes:,} classes",
                ours=sbs.Candidate("clim_eval", partial(build, *sizes)),
                other=sbs.Candidate(label, partial(build_other, *sizes)),
                agree=agree,
                target=1,
                memory_target=1,
                items=images,
                item="image",
            )
        )
    return sbs.run("detection_metric", comparisons, sbs.settings_from(args))


if __name__ == "__main__":
    main()

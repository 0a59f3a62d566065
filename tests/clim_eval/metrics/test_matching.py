"""The matcher against the evaluator of COCO, on drawn boxes and masks with ties and crowds."""

import contextlib
import copy
import io

import numpy as np
import pytest
from clim_eval.metrics.detection import category_precision, coco_ap
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 200


def drawn_objects(rng, number, images, *, with_scores):
    """Boxes on a coarse grid, so that many overlap by the same share, and scores with ties."""
    objects = []
    for row in range(number):
        left, top = (int(value) * 10 for value in rng.integers(0, 10, 2))
        width, height = (int(value) * 10 for value in rng.integers(1, 11, 2))
        polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
        one = {
            "image_id": images[int(rng.integers(len(images)))],
            "category_id": int(rng.choice([7, 3, 9])),
            "bbox": [left, top, width, height],
            "segmentation": [polygon],
        }
        if with_scores:
            one["score"] = float(rng.integers(1, 8)) / 8
        else:
            one |= {"id": row + 1, "area": width * height, "iscrowd": int(row % 9 == 0)}
        objects.append(one)
    return objects


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    images = [40, 5, 11, 23]
    truth = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in images],
        "annotations": drawn_objects(rng, 60, images, with_scores=False),
        # In another order than their ids, and one without annotations.
        "categories": [{"id": number, "name": f"class {number}"} for number in (7, 3, 8, 9)],
    }
    # More than 100 of a class in a picture.
    return truth, drawn_objects(rng, 1400, images, with_scores=True)


def evaluation_of_coco(truth, detections, iou_type):
    """Return the precision (T, recalls, K, A, numbers of boxes), categories as in the file."""
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = copy.deepcopy(truth)
        true.createIndex()
        names = ("image_id", "category_id", "score", "bbox" if iou_type == "bbox" else None)
        found = [{name: one[name] for name in names if name} for one in detections]
        if iou_type == "segm":
            for copied, one in zip(found, detections, strict=True):
                copied["segmentation"] = true.annToRLE({**one, "id": 0})
        evaluation = COCOeval(true, true.loadRes(found), iou_type)
        evaluation.params.catIds = [category["id"] for category in truth["categories"]]
        evaluation.params.maxDets = [10, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    # It sorts the categories by their ids.
    order = np.argsort(np.argsort([one["id"] for one in truth["categories"]]))
    precision = evaluation.eval["precision"][:, :, order]
    return np.where(precision < 0, np.nan, precision).mean(axis=1)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_every_figure_equals_that_of_the_evaluator_of_coco(drawn, iou_type):
    truth, detections = drawn
    expected = evaluation_of_coco(truth, detections, iou_type)

    found = category_precision(truth, detections, iou_type=iou_type)

    assert np.isnan(found.average[:, 2]).all()
    assert np.nanmin(found.at_50) > 0
    # More than 100 boxes of a class in a picture: of the last ones AP50 counts some, the mean none.
    assert not np.allclose(expected[0, :, 0, 2], expected[0, :, 0, 1], equal_nan=True)
    np.testing.assert_allclose(found.average, expected[:, :, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found.at_50, expected[0, :, 0, 2], atol=1e-12)
    np.testing.assert_allclose(found.at_75, expected[5, :, 0, 2], atol=1e-12)
    for size in range(3):
        np.testing.assert_allclose(found.of_size[size], expected[:, :, size + 1, 1], atol=1e-12)
    assert coco_ap(found)["APm"] == pytest.approx(np.nanmean(expected[:, :, 2, 1]))


def test_the_order_of_pictures_and_detections_decides_nothing_but_ties(drawn):
    truth, detections = drawn
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(detections)).tolist():
        detections[place]["score"] = float(rng.random())
    once = category_precision(truth, detections)
    truth = {**truth, "images": truth["images"][::-1]}
    again = category_precision(truth, detections[::-1])
    np.testing.assert_array_equal(once.average, again.average)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "detection 1 has the score nan"),
        ({"score": "high"}, "detection 1 has the score 'high'"),
        ({"bbox": [0, 0, -4, 4]}, "bbox as x, y, width, height"),
        ({"category_id": 8.5}, "map labels to category ids by name"),
        ({"image_id": [1]}, "the file of the same pictures"),
    ],
)
def test_detections_that_cannot_be_used_are_refused(drawn, change, message):
    truth, detections = drawn
    with pytest.raises(ValueError, match=message):
        category_precision(truth, [{**detections[0], **change}])


def test_a_detection_without_score_or_mask_is_refused(drawn):
    truth, detections = drawn
    one = dict(detections[0])
    del one["score"], one["segmentation"]
    with pytest.raises(ValueError, match="detection 1 has no score, segmentation"):
        category_precision(truth, [one], iou_type="segm")
    with pytest.raises(ValueError, match="write an object"):
        category_precision(truth, ["cat"])

"""Average precision on LVIS, against the golden metrics."""

import json
import math

import pytest
from clim_eval.metrics.lvis import lvis_ap
from golden_detectors import FAMILY


@pytest.fixture
def case(golden):
    return golden("metric_lvis", FAMILY)


def files_of(case):
    parts = ("gt", "dt")
    return [json.loads((case.folder / f"metric_lvis_{part}.json").read_text()) for part in parts]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_golden_ap(case, iou_type):
    found = lvis_ap(*files_of(case), iou_type=iou_type)
    checked = 0
    for key in case.arrays:
        if key.startswith(f"out/{iou_type}/"):
            value = found[f"{iou_type}.{key.rpartition('/')[2]}"]
            value = -1 if math.isnan(value) else value
            tolerance = case.meta["keys"][key]["tolerance"]
            assert value == pytest.approx(float(case.arrays[key]), abs=tolerance), key
            checked += 1
    assert checked >= 9


def test_golden_exact_figures_and_groups(case):
    found = lvis_ap(*files_of(case))
    names = ("AP", "AP50", "AP75", "APr", "APc", "APf")
    tolerance = case.meta["keys"]["out/exact"]["tolerance"]
    for name, value in zip(names, case.arrays["out/exact"], strict=True):
        assert found[f"segm.{name}"] == pytest.approx(float(value), abs=tolerance), name

    groups = {"base": "AP50_base", "novel": "AP50_novel", "all": "AP50"}
    for group, name in groups.items():
        key = f"out/{group}_mask_ap50"
        tolerance = case.meta["keys"][key]["tolerance"]
        expected = float(case.arrays[key])
        assert found[f"segm.{name}"] * 100 == pytest.approx(expected, abs=tolerance)


def example(number, score=0.5):
    """One annotated class, and detections of it on a picture that is full of another class."""
    truth = {
        "images": [
            {
                "id": 1,
                "height": 50,
                "width": 50,
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [],
            }
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
        ],
        "categories": [
            {"id": 1, "name": "a", "frequency": "r"},
            {"id": 2, "name": "b", "frequency": "f"},
        ],
    }
    others = [
        {"image_id": 1, "category_id": 2, "score": 0.9, "bbox": [0, 0, 9, 9]} for _ in range(number)
    ]
    right = {"image_id": 1, "category_id": 1, "score": score, "bbox": [0, 0, 9, 9]}
    return truth, [*others, right]


def test_fixed_ap_counts_by_class_and_not_by_picture():
    truth, detections = example(300)
    assert lvis_ap(truth, detections, iou_type="bbox")["bbox.APr"] == 0
    found = lvis_ap(truth, detections, iou_type="bbox", fixed=True)
    assert found["fixed.bbox.APr"] == pytest.approx(1)
    assert math.isnan(found["fixed.bbox.APf"])


def test_wrong_questions_are_refused():
    truth, detections = example(1)
    with pytest.raises(ValueError, match="choose from bbox, segm"):
        lvis_ap(truth, detections, iou_type="mask")
    with pytest.raises(ValueError, match="the file of the same pictures"):
        lvis_ap(truth, [{**detections[0], "image_id": 9}], iou_type="bbox")

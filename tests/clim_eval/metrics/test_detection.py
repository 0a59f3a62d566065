"""Average precision on OV-COCO, against the golden metrics of both protocols."""

import json
import math

import pytest
from clim_eval.metrics.detection import category_precision, open_vocabulary_ap
from golden_detectors import FAMILY


def files_of(case, name):
    return [json.loads((case.folder / f"{name}_{part}.json").read_text()) for part in ("gt", "dt")]


def is_close(case, key, fraction, scale=1.0):
    tolerance = case.meta["keys"][key]["tolerance"]
    assert fraction * scale == pytest.approx(float(case.arrays[key]), abs=tolerance), key


def test_golden_fvit_protocol(golden):
    case = golden("metric_coco", FAMILY)
    truth, detections = files_of(case, "metric_coco")
    groups = {name: case.meta["config"][name] for name in ("base", "novel")}
    found = open_vocabulary_ap(truth, detections, **groups, protocol="fvit")
    for group in ("base", "novel", "all"):
        is_close(case, f"out/{group}_ap50", found[f"fvit.AP50_{group}"], 100)
    is_close(case, "out/bbox_mAP", found["fvit.AP_all"])
    is_close(case, "out/bbox_mAP_75", found["fvit.AP75_all"])
    is_close(case, "out/bbox_mAP_50", found["fvit.AP50_all"])

    each = category_precision(truth, detections)
    assert list(each.names) == case.meta["class_order"]
    tolerance = case.meta["keys"]["out/ap50_per_class"]["tolerance"]
    for value, expected in zip(each.at_50, case.arrays["out/ap50_per_class"], strict=True):
        percent = -1 if math.isnan(value) else value * 100
        assert percent == pytest.approx(expected, abs=tolerance)


def test_golden_ovdet_protocol(golden):
    case = golden("metric_ovdet", FAMILY)
    truth, detections = files_of(case, "metric_ovdet")
    groups = {name: case.meta["config"][name] for name in ("base", "novel")}
    found = open_vocabulary_ap(truth, detections, **groups, protocol="ovdet")
    assert "ovdet.AP50_all" not in found
    for group in ("Base", "Novel"):
        is_close(case, f"out/{group}/bbox_mAP_50", found[f"ovdet.AP50_{group.lower()}"])
        is_close(case, f"out/{group}/bbox_mAP", found[f"ovdet.AP_{group.lower()}"])
        is_close(case, f"out/{group}/bbox_mAP_75", found[f"ovdet.AP75_{group.lower()}"])


TRUTH = {
    "images": [{"id": 1, "height": 50, "width": 50}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cup"}],
}


def test_no_detection_is_zero_and_no_annotation_is_nan():
    groups = {"base": ["cat"], "novel": ["dog"]}
    found = open_vocabulary_ap(TRUTH, [], **groups, protocol="ovdet")
    assert found["ovdet.AP50_base"] == 0
    assert math.isnan(found["ovdet.AP50_novel"])
    one = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 9, 9]}
    again = open_vocabulary_ap(TRUTH, [one], **groups, protocol="ovdet")
    assert again["ovdet.AP50_base"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "other"}, "choose from fvit, ovdet"),
        ({"base": ["bird"]}, "spell names as in the file"),
        ({"novel": ["cat"]}, "are base and novel"),
        ({"protocol": "fvit"}, "choose protocol='ovdet'"),
        ({"iou_type": "keypoints"}, "choose from bbox, segm"),
    ],
)
def test_wrong_questions_are_refused(change, message):
    options = {"base": ["cat"], "novel": ["dog"], "protocol": "ovdet", **change}
    with pytest.raises(ValueError, match=message):
        open_vocabulary_ap(TRUTH, [], **options)


def test_detections_of_other_files_are_refused():
    one = {"image_id": 7, "category_id": 1, "score": 0.5, "bbox": [0, 0, 9, 9]}
    with pytest.raises(ValueError, match="map labels to category ids by name"):
        category_precision(TRUTH, [one])


@pytest.mark.parametrize("box", [[0, 0, 9], [0, 0, 9, 9, 9], "0099", 9])
def test_boxes_of_another_form_are_refused(box):
    sound = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 9, 9]}
    with pytest.raises(ValueError, match=r"detection 2 .* bbox as x, y, width, height"):
        # The numbers of the last two would fill two boxes.
        category_precision(TRUTH, [sound, {**sound, "bbox": box}, {**sound, "bbox": [0, 0, 9]}])

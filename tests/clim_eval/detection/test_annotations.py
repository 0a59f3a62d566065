"""Annotation files of an evaluation of detectors: odd fields of records."""

import json

import pytest
from clim_eval.detection.annotations import DetectionTruth
from clim_eval.detection.options import ProtocolOptions

POLYGON = [[10, 10, 40, 10, 40, 40, 10, 40]]


def read(tmp_path, *, images=None, categories=None, **fields):
    """Read a file of two images and annotations, of which the first has other fields."""
    record = {"category_id": 1, "bbox": [10, 10, 30, 20], "segmentation": POLYGON, "area": 600}
    contents = {
        "images": images
        or [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in (1, 2)],
        "categories": categories or [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {**record, "id": 1, "image_id": 1, **fields},
            {**record, "id": 2, "image_id": 2},
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(contents))
    return DetectionTruth.read(path)


@pytest.mark.parametrize("area", ["900", None, float("nan"), -3, True, [900]])
def test_an_area_that_is_none_is_that_of_the_box(tmp_path, area):
    first, second = read(tmp_path, area=area).contents()["annotations"]
    assert first["area"] == 600.0
    assert second["area"] == 600


@pytest.mark.parametrize(("flag", "is_crowd"), [("0", 0), ("1", 1), (False, 0), (None, 0), (1, 1)])
def test_a_crowd_is_what_the_records_say(tmp_path, flag, is_crowd):
    assert read(tmp_path, iscrowd=flag).contents()["annotations"][0]["iscrowd"] == is_crowd


@pytest.mark.parametrize(
    "segmentation", [{"size": [48, 64], "counts": [3]}, [[0, 0, 1e9, 0, 1e9, 1e9]], "cat"]
)
def test_an_annotation_with_a_mask_that_is_none_is_left_out_and_named(tmp_path, segmentation):
    truth = read(tmp_path, segmentation=segmentation)
    assert [one["id"] for one in truth.contents()["annotations"]] == [2]
    assert [fault.reason for fault in truth.faults()] == ["bad segmentation"]
    assert "annotation 1 (id 1)" in truth.faults()[0].name


def test_a_split_that_is_no_text_is_no_group(tmp_path):
    categories = [{"id": 1, "name": "cat", "split": ["base"]}, {"id": 2, "name": "dog", "split": 5}]
    truth = read(tmp_path, categories=categories)
    assert truth.protocol(ProtocolOptions()).name == "coco"


@pytest.mark.parametrize("ids", ["2", [[2]], None, [2.5]])
def test_lists_of_lvis_are_lists_of_ids(tmp_path, ids):
    size = {"height": 48, "width": 64, "not_exhaustive_category_ids": []}
    images = [{"id": n, "file_name": f"{n}.png", "neg_category_ids": [2], **size} for n in (1, 2)]
    assert read(tmp_path, images=images).lists[1]["neg_category_ids"] == [2]
    images[1]["neg_category_ids"] = ids
    with pytest.raises(ValueError, match=r"image 2 \(id 2\): neg_category_ids is .*category ids"):
        read(tmp_path, images=images)

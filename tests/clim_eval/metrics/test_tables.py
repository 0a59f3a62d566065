"""Detections and annotations as tables: what cannot be used is refused before any code sees it."""

import pytest
from clim_eval.metrics.tables import ResultTable, TruthTable

BOX = [10, 10, 30, 30]
RUNS = {"size": [48, 64], "counts": [600, 472, 2000]}
TRUTH = {
    "images": [{"id": 1, "height": 48, "width": 64}, {"id": 2, "height": 48, "width": 64}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": RUNS}],
}


def result(**changes):
    return {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5, **changes}


MASKS = {
    "runs that are too short": ({"size": [48, 64], "counts": [3, 5]}, "runs add up to 8 of 3072"),
    "a text that is too short": ({"size": [48, 64], "counts": "52"}, "runs add up to 7 of 3072"),
    "an empty text": ({"size": [48, 64], "counts": ""}, "text of the runs is empty"),
    "a text that breaks off": ({"size": [48, 64], "counts": "0P"}, "breaks off"),
    "no ASCII": ({"size": [48, 64], "counts": "ä"}, "characters that it cannot have"),
    "another size": ({"size": [480, 640], "counts": [0, 307200]}, "is not the image's"),
    "a size without end": ({"size": [2**31, 2**31], "counts": [2**62]}, "is not the image's"),
    "a polygon far outside": ([[0, 0, 1e9, 0, 1e9, 1e9]], "coordinate"),
    "a polygon with NaN": ([[5, 5, float("nan"), 9, 30, 30]], "coordinate nan"),
    "null": (None, "no polygon"),
    "a number": (5, "neither polygons nor run lengths"),
    "no counts": ({"size": [48, 64]}, "neither list nor text"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_detections_are_checked_before_they_are_compared(kind):
    mask, message = MASKS[kind]
    truth = TruthTable.of(TRUTH, "segm")
    sound = result(segmentation=RUNS)
    assert len(ResultTable.of([sound], truth)) == 1
    with pytest.raises(ValueError, match=f"detection 2: .*{message}.*run lengths of the whole"):
        ResultTable.of([sound, result(segmentation=mask)], truth)


def test_masks_of_images_whose_size_the_file_leaves_out_have_their_own():
    images = [{"id": 1}, {"id": 2}]
    truth = TruthTable.of({**TRUTH, "images": images}, "segm")
    assert len(ResultTable.of([result(segmentation=RUNS)], truth)) == 1
    with pytest.raises(ValueError, match="runs add up to 8"):
        ResultTable.of([result(segmentation=MASKS["runs that are too short"][0])], truth)


@pytest.mark.parametrize(
    "changes",
    [{"score": True}, {"image_id": True}, {"category_id": True}, {"bbox": [0, 0, 1e200, 1]}],
)
def test_truth_values_and_numbers_without_end_are_refused(changes):
    with pytest.raises(ValueError, match="detection"):
        ResultTable.of([result(**changes)], TruthTable.of(TRUTH, "bbox"))


def test_an_annotation_without_a_mask_names_the_fix():
    without = {**TRUTH["annotations"][0], "segmentation": []}
    with pytest.raises(ValueError, match=r"annotation 1 has no segmentation.*--iou-types bbox"):
        TruthTable.of({**TRUTH, "annotations": [without]}, "segm")

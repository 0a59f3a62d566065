"""Boxes of phrases, by hand."""

import pytest
import torch
from clim_eval.metrics import phrase_boxes, reasoning_metrics


def test_boxes_and_the_pointing_game():
    logits = torch.full((4, 20, 30), -1.0)
    logits[0, 0:10, 0:10] = 1.0  # the first of two boxes exactly
    logits[1, 5:10, 5:15] = 2.0  # half of a box, and as much beside it
    logits[2, 19, 29] = -0.5  # nothing, but the peak lies in the box
    logits[3, 0:2, 0:2] = 1.0  # elsewhere
    boxes = [
        [(0, 0, 10, 10), (20, 10, 30, 20)],
        [(5, 5, 10, 10)],
        [(20, 10, 30, 20)],
        [(20, 10, 30, 20)],
    ]
    found = phrase_boxes(logits, boxes)
    assert found["any"] == pytest.approx([1, 0.5, 0, 0])
    assert found["merged"] == pytest.approx([100 / 600, 0.5, 0, 0])
    assert found["pointed"] == [True, True, True, False]
    assert all(isinstance(value, float) for value in found["any"] + found["merged"])


def test_no_phrase_has_no_figure():
    assert phrase_boxes(torch.zeros(0, 4, 4), []) == {"merged": [], "any": [], "pointed": []}


def test_questions_of_both_lengths():
    found = reasoning_metrics([5, 0, 2, 0], [10, 0, 4, 6], [True, False, False, True])
    assert found["gIoU"] == pytest.approx((0.5 + 1 + 0.5 + 0) / 4, abs=1e-5)
    assert found["cIoU"] == pytest.approx(7 / 20)
    assert found["short.gIoU"] == pytest.approx(0.75, abs=1e-5)
    assert found["long.cIoU"] == pytest.approx(5 / 16)
    with pytest.raises(ValueError, match="differ in length"):
        reasoning_metrics([1], [1, 2], [True, False])

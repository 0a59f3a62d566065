"""Named boxes in pictures."""

import numpy as np
import pytest
from clim_eval.pictures import NamedBoxes, named_boxes_figure


def test_right_boxes_are_counted_and_boxes_without_area_are_not_drawn():
    images = [np.zeros((20, 30, 3), np.uint8)] * 2
    boxes = np.array([[0.1, 0.1, 0.5, 0.6], [0.0, 0.0, 0.0, 0.0]])
    one, other = (
        NamedBoxes(boxes, ["cat", "dog"], right) for right in ([True, False], [False] * 2)
    )
    figure = named_boxes_figure(images, {"a": [one, one], "b": [other, other]}, verb="found")

    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["a: 1 of 2 found", "b: 0 of 2 found"] * 2
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["✓ cat"]


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        named_boxes_figure([], {})
    with pytest.raises(ValueError, match="shorter"):
        named_boxes_figure([np.zeros((8, 8, 3), np.uint8)], {"a": []})

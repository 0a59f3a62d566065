"""Boxes, names and masks are drawn where they are."""

import numpy as np
import pytest
from clim_eval.pictures.detections import TINT, detection_figure
from clim_eval.pictures.style import PALETTE
from matplotlib.colors import to_rgb


def test_boxes_masks_and_names_are_in_place():
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    boxes = np.array([[10.0, 12, 20, 22], [2, 4, 50, 38]])
    masks = np.zeros((2, 40, 60), dtype=bool)
    masks[0, 15, 15] = True

    figure = detection_figure(
        image, boxes, [1, 0], ["cat", "5$ bill"], scores=[0.9, 0.4], masks=masks
    )

    axis = figure.axes[0]
    corners = [patch.get_bbox().extents.tolist() for patch in axis.patches]
    assert corners == [boxes[1].tolist()] * 2 + [boxes[0].tolist()] * 2  # the large one below
    assert [text.get_text() for text in axis.texts] == ["cat 0.40", "5$ bill 0.90"]
    drawn = np.asarray(axis.images[0].get_array())
    tint = 255 * np.array(to_rgb(PALETTE[1]))
    np.testing.assert_allclose(drawn[15, 15], (1 - TINT) * 100 + TINT * tint, atol=0.51)
    assert (drawn[0] == 100).all()


def test_pictures_without_a_box_and_numbers_that_differ():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    assert not detection_figure(image, np.zeros((0, 4)), [], ["cat"]).axes[0].patches
    with pytest.raises(ValueError, match="1 labels for 0 boxes"):
        detection_figure(image, np.zeros((0, 4)), [0], ["cat"])

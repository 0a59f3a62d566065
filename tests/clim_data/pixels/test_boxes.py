"""Boxes around masks, formats and clipping, against slow loops."""

import numpy as np
import pytest
import torch
from clim_data.pixels.boxes import (
    box_of_mask,
    boxes_of_masks,
    padded_boxes,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

MASKS = {
    "a block": ((2, 4), (3, 7), (3, 2, 7, 4)),
    "one pixel": ((5, 6), (0, 1), (0, 5, 1, 6)),
    "the last pixel": ((5, 6), (7, 8), (7, 5, 8, 6)),
    "all": ((0, 6), (0, 8), (0, 0, 8, 6)),
}


def mask_of(rows, columns):
    mask = np.zeros((6, 8), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.mark.parametrize("name", MASKS)
def test_box_around_a_mask(name):
    rows, columns, box = MASKS[name]
    assert box_of_mask(mask_of(rows, columns)) == box


def test_a_mask_with_holes_has_the_box_of_its_outermost_pixels():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1, 6] = mask[4, 2] = True
    assert box_of_mask(mask) == (2, 1, 7, 5)


def test_an_empty_mask_has_no_box():
    assert box_of_mask(np.zeros((3, 4), dtype=bool)) is None
    assert box_of_mask(np.zeros((0, 4), dtype=bool)) is None


def test_many_masks_have_the_boxes_of_each():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 9, 7, generator=generator) > 0.97
    boxes, empty = boxes_of_masks(masks)
    assert empty.any()
    assert not empty.all()
    for mask, box, is_empty in zip(masks, boxes, empty, strict=True):
        wanted = box_of_mask(mask.numpy())
        assert (wanted is None) == is_empty
        assert wanted is None or tuple(box.tolist()) == wanted


def test_no_masks_have_no_boxes():
    boxes, empty = boxes_of_masks(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert boxes.shape == (0, 4)
    assert empty.shape == (0,)


def test_formats_are_inverse():
    assert xywh_to_xyxy((3, 2, 4, 1)) == (3, 2, 7, 3)
    assert xyxy_to_xywh((3, 2, 7, 3)) == (3, 2, 4, 1)


def test_boxes_are_clipped_and_become_fractions_of_the_square():
    boxes = torch.tensor([[-5.0, 10.0, 30.0, 99.0], [0.0, 0.0, 40.0, 20.0]])
    found = padded_boxes(boxes, (20, 40))
    assert found.tolist() == [[0.0, 0.25, 0.75, 0.5], [0.0, 0.0, 1.0, 0.5]]

"""The level of a box, at the borders between levels."""

import torch
from clim_models.detection.boxes.roi import level_of_boxes


def test_levels_begin_at_twice_the_side_of_the_one_before():
    sides = torch.tensor([0.0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 2000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], 1)
    assert level_of_boxes(boxes, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of_boxes(boxes, 3).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    # The geometric mean of the sides counts, and a rounding below the border does not.
    assert level_of_boxes(torch.tensor([[0.0, 0, 56, 224], [0, 0, 112, 111.9999]]), 4).tolist() == [
        1,
        1,
    ]

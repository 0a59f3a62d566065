"""Scores of masks by their geometry, against a count of pixels one by one."""

import pytest
import torch
from flmm.heads.scores import geometric_scores, mask_agreement


def counted_agreement(coarse, refined):
    """The same IoU, cell by cell."""
    rows, columns = coarse.shape
    height, width = refined.shape[0] // rows, refined.shape[1] // columns
    both = either = 0.0
    for y in range(rows):
        for x in range(columns):
            cell = refined[y * height : (y + 1) * height, x * width : (x + 1) * width]
            share = (cell > 0).sum().item() / cell.numel()
            inside = float(coarse[y, x] > 0)
            both += min(share, inside)
            either += max(share, inside)
    return both / either if either else 0.0


def test_agreement_counts_shares_of_cells():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(5, 4, 6, generator=generator)
    refined = torch.randn(5, 20, 18, generator=generator)
    coarse[3], refined[3] = -1, -1  # both empty
    refined[4] = coarse[4].repeat_interleave(5, 0).repeat_interleave(3, 1)  # the same mask
    expected = [counted_agreement(c, r) for c, r in zip(coarse, refined, strict=True)]
    assert mask_agreement(coarse, refined).tolist() == pytest.approx(expected)
    assert expected[3:] == [0, 1]


def test_a_score_is_the_geometric_mean_of_expected_iou_and_agreement():
    coarse = torch.tensor([[[1.0, -1.0]], [[1.0, -1.0]], [[-1.0, -1.0]]])
    refined = torch.tensor([[[1.0, -1.0]], [[1.0, 1.0]], [[-1.0, -1.0]]])
    scores = geometric_scores(coarse, refined, torch.tensor([0.81, 0.5, 1.0]))
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.0])


def test_no_phrase_has_no_score():
    none = torch.zeros(0, 4, 4)
    assert geometric_scores(none, torch.zeros(0, 9, 9), torch.zeros(0)).shape == (0,)

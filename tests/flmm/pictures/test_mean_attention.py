"""One map of attention for each phrase: shares of each head, and where the image lies in it."""

import pytest
import torch
from flmm.adapters.features import PhraseFeatures
from flmm.adapters.frames import ImageFrame
from flmm.adapters.layout import single_grid
from flmm.pictures.mean_attention import mean_attention


def features(maps, padding=None):
    return PhraseFeatures(
        maps, torch.zeros(1, len(maps), 1), (1,) * len(maps), single_grid(4, 4, padding=padding)
    )


def test_padding_is_cut_off_and_places_are_kept():
    maps = torch.zeros(2, 3, 4, 4)
    maps[0, :, 1, 3] = torch.tensor(
        [1.0, 2.0, 3.0]
    )  # looks right, in the upper of the image's two rows of tokens
    found = mean_attention(features(maps, ImageFrame((20, 40), (20, 40), (40, 40), 10, 0)))
    assert found.shape == (2, 8, 16)
    row, column = divmod(int(found[0].argmax()), 16)
    assert row < 4
    assert column >= 12
    assert found[1].abs().max() == 0  # nothing to share: no division by zero


def test_every_head_has_the_same_weight():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 0, 0] = 1e-3
    maps[0, 1, 3, 3] = 1.0
    found = mean_attention(features(maps))[0]
    assert found[0, 0] == pytest.approx(found[-1, -1]) == 0.5

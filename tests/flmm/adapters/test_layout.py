"""How tokens of an image lie on it: grids of several views, marks between tokens, late merging."""

import pytest
import torch
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from todays_lmms import characters
from torch.nn import functional as F

LENGTHS = (2, 1)


def two_views(**options) -> ImageLayout:
    """A whole image of 2 x 2 tokens, then 2 x 2 tiles of 2 x 2."""
    return ImageLayout(
        (grid_of_tokens(0, 2, 2), tiled_grid(4, tiles=(2, 2), side=2)), 20, **options
    )


def test_channels_of_views_stand_together_by_view_or_by_layer():
    rows = torch.rand(3, 6, 20)  # three layers of two heads
    by_view, by_layer = two_views().arrange(rows), two_views(heads=2).arrange(rows)
    assert by_view.shape == by_layer.shape == (3, 12, 4, 4)
    views = by_view.unflatten(1, (2, 3, 2))  # (N, view, layer, head, h, w)
    layers = by_layer.unflatten(1, (3, 2, 2))  # (N, layer, view, head, h, w)
    assert torch.equal(views.transpose(1, 2), layers)


def test_late_merging_is_a_maximum_of_enlarged_maps():
    torch.manual_seed(1)
    rows = torch.rand(3, 4, 20)
    early, late = two_views(), two_views(merge_last=True)
    torch.testing.assert_close(
        late.merge(rows, LENGTHS, "mean"), early.merge(rows, LENGTHS, "mean")
    )
    found = late.merge(rows, LENGTHS, "max")
    coarse = F.interpolate(rows[..., :4].unflatten(2, (2, 2)), (4, 4), mode="bilinear")
    torch.testing.assert_close(found[0, :4], coarse[:2].amax(0))
    torch.testing.assert_close(found[1, :4], coarse[2])
    assert not torch.allclose(found, early.merge(rows, LENGTHS, "max"))


def test_marks_between_tokens_need_a_tokenizer_that_knows_them():
    tokenizer = characters("<image>", "<row>")
    layout = ImageLayout((grid_of_tokens(0, 2, 1),), 2, text="<image><row><image>\n")
    assert layout.ids(50, tokenizer).tolist() == [50, 51, 50, 3]
    assert ImageLayout(layout.grids, 2).ids(50, None).tolist() == [50, 50]
    with pytest.raises(ValueError, match="pass its tokenizer to build_lmm"):
        layout.ids(50, None)
    with pytest.raises(
        ValueError, match="makes 0 image tokens of an image of 2: use the LMM's own"
    ):
        layout.ids(50, characters("<picture>"))

"""Windows of masks against whole bitmaps."""

import numpy as np
import pytest
from clim_data.faults import BrokenSample
from clim_data.pixels.mask_windows import MaskWindow, cut_window, mirror_window, window_of_mask
from clim_data.pixels.masks import encode_mask
from clim_data.pixels.segmentations import compress_segmentation, decode_segmentation, mask_window

SIZE = (30, 41)


def bitmap(window, size=SIZE):
    whole = np.zeros(size, dtype=bool)
    left, top, right, bottom = window.box
    whole[top:bottom, left:right] = window.pixels
    return whole


def segmentations():
    noise = np.random.default_rng(0).random(SIZE) < 0.1
    noise[:4], noise[:, -3:] = False, False
    corner = np.zeros(SIZE, dtype=bool)
    corner[-1, -1] = True
    runs = encode_mask(noise)
    flat = noise.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    listed = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {
        "polygons": [[2.5, 3, 20, 4, 11, 28.2], [30, 2, 40, 2, 40, 9, 30, 9]],
        "text": runs,
        "bytes": {**runs, "counts": runs["counts"].encode()},
        "list": {"size": list(SIZE), "counts": listed},
        "last pixel": encode_mask(corner),
        "full": encode_mask(np.ones(SIZE, dtype=bool)),
    }


@pytest.mark.parametrize("kind", segmentations())
def test_windows_hold_the_mask_that_the_segmentation_draws(kind):
    given = segmentations()[kind]
    text, dropped = compress_segmentation(given, SIZE)
    assert dropped == 0
    window = MaskWindow(*mask_window(text, SIZE[0]))
    whole = decode_segmentation(given, *SIZE)
    assert np.array_equal(bitmap(window), whole)
    assert window.box == window_of_mask(whole).box


def test_masks_without_a_pixel_are_refused_and_polygons_without_area_counted():
    for empty in ([[1, 1, 9, 1, 5, 1]], encode_mask(np.zeros(SIZE, dtype=bool)), [], None):
        with pytest.raises(BrokenSample, match="empty segmentation"):
            compress_segmentation(empty, SIZE, "a mask")
    assert compress_segmentation([[1, 1, 9, 1, 5, 9], [1, 1]], SIZE)[1] == 1


def test_views_of_windows_are_views_of_bitmaps():
    whole = decode_segmentation(segmentations()["polygons"], *SIZE)
    window = window_of_mask(whole)
    noise = np.random.default_rng(1)
    seen = 0
    for _ in range(50):
        height, width = noise.integers(1, 60, 2)
        top, left = noise.integers(0, 20, 2)
        rows = np.sort(noise.integers(0, SIZE[0], height))[top:]
        columns = np.sort(noise.integers(0, SIZE[1], width))[left:]
        expected = whole[rows][:, columns]
        view = cut_window(window, rows, columns)
        if view is None:
            assert not expected.any()
            continue
        seen += 1
        assert np.array_equal(bitmap(view, expected.shape), expected)
        mirrored = mirror_window(view, len(columns))
        assert np.array_equal(bitmap(mirrored, expected.shape), expected[:, ::-1])
    assert seen > 20

"""Segmentations: what is drawn equals pycocotools, and what is malformed never reaches it."""

import numpy as np
import pytest
from clim_data.faults import BrokenSample
from clim_data.pixels import segmentations
from clim_data.pixels.segmentations import check_segmentation, decode_segmentation
from pycocotools import mask as coco_mask

SIZE = (9, 12)
NAN, INF = float("nan"), float("inf")


def masks():
    rng = np.random.default_rng(0)
    yield np.zeros(SIZE, bool)
    yield np.ones(SIZE, bool)
    for share in (0.02, 0.3, 0.5, 0.9):
        yield rng.random(SIZE) < share


@pytest.mark.parametrize("mask", list(masks()))
def test_runs_of_every_kind_come_back(mask):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = code["counts"].decode()
    flat = np.concatenate([[False], mask.flatten(order="F")])
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    runs = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    for counts in (text, text.encode(), runs):
        rle = {"size": list(SIZE), "counts": counts}
        assert np.array_equal(decode_segmentation(rle, *SIZE), mask)


def test_large_runs_and_differences_below_zero():
    mask = np.zeros((700, 900), bool)
    mask[3:650, 5:800:7] = True
    mask[100, 400:] = True
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = {"size": [700, 900], "counts": code["counts"].decode()}
    assert np.array_equal(decode_segmentation(rle, 700, 900), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize(
    "polygons",
    [
        [[1, 1, 8, 1, 8, 7, 1, 7]],
        [[0.5, 0.25, 11.9, 4, 3, 8.75], [6, 6, 9, 6, 9, 8]],
        [[-3, -2, 20, 4, 5, 15]],  # partly outside: clipped
    ],
)
def test_polygons_are_drawn_as_pycocotools_draws_them(polygons):
    code = coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE))
    assert np.array_equal(decode_segmentation(polygons, *SIZE), coco_mask.decode(code).astype(bool))


GOOD = [1, 1, 8, 1, 8, 7]


@pytest.mark.parametrize(
    ("segmentation", "reason", "detail"),
    [
        ([], "empty segmentation", "no polygon"),
        (None, "empty segmentation", "no polygon"),
        ([[]], "bad segmentation", "a polygon of 0 numbers, at least 6"),
        ([[5, 5]], "bad segmentation", "a polygon of 2 numbers, at least 6"),
        ([[1, 1, 5, 5]], "bad segmentation", "a polygon of 4 numbers, at least 6"),
        ([GOOD, [1, 1, 8, 1, 8, 7, 3]], "bad segmentation", "7 numbers, an odd one"),
        ([[1, 1, NAN, 1, 8, 7]], "bad segmentation", "coordinate nan"),
        ([[1, 1, INF, 1, 8, 7]], "bad segmentation", "coordinate inf"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "bad segmentation", "coordinate 1e+09 in an image of 12 x 9"),
        ([[0, 0, 25, 0, 5, 5]], "bad segmentation", "coordinate 25 in an image of 12 x 9"),
        ([[0, 0, 10**400, 0, 5, 5]], "bad segmentation", "more than 300 digits"),
        ([[0, 0, "8", 0, 5, 5]], "bad segmentation", "coordinate '8' is no number"),
        ([[0, 0, True, 0, 5, 5]], "bad segmentation", "coordinate True is no number"),
        (GOOD, "bad segmentation", "1 is no list of coordinates"),
        ([[0, 0, 12, 9, 0, 9] * 300], "bad segmentation", "an outline of"),
        ("text", "bad segmentation", "neither polygons nor run lengths"),
        ({"size": [9, 12], "counts": [3, 5]}, "bad segmentation", "runs add up to 8 of 108 pixels"),
        ({"size": [9, 12], "counts": []}, "bad segmentation", "runs add up to 0 of 108 pixels"),
        ({"size": [9, 12], "counts": "52"}, "bad segmentation", "runs add up to 7 of 108"),
        ({"size": [9, 12], "counts": ""}, "bad segmentation", "the text of the runs is empty"),
        ({"size": [9, 12], "counts": "é!"}, "bad segmentation", "characters that it cannot have"),
        ({"size": [9, 12], "counts": "oo"}, "bad segmentation", "breaks off"),
        ({"size": [9, 12], "counts": "o" * 9 + "0"}, "bad segmentation", "too long"),
        ({"size": [9, 12], "counts": [50.7, 57.3]}, "bad segmentation", "no whole number"),
        ({"size": [9, 12], "counts": [True, 107]}, "bad segmentation", "no whole number"),
        ({"size": [9, 12], "counts": [-4, 112]}, "bad segmentation", "a run of -4"),
        ({"size": [9, 12], "counts": [10**30]}, "bad segmentation", "more than 2**63"),
        ({"size": [9, 12]}, "bad segmentation", "neither list nor text"),
        ({"size": [12, 9], "counts": [108]}, "size mismatch", "[12, 9] is not the image's [9, 12]"),
        ({"size": [30000, 30000], "counts": [9 * 10**8]}, "size mismatch", "[30000, 30000]"),
        ({"counts": [108]}, "size mismatch", "None is not"),
    ],
)
def test_malformed_ones_are_named(segmentation, reason, detail):
    with pytest.raises(BrokenSample) as caught:
        check_segmentation(segmentation, SIZE, "i.json, annotation 1 (id 7)")
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert caught.value.name == "i.json, annotation 1 (id 7)"
    if segmentation:
        with pytest.raises(BrokenSample):
            decode_segmentation(segmentation, *SIZE)


def test_polygons_without_an_area_are_left_out_next_to_others():
    assert check_segmentation([GOOD, [5, 5], [1, 1, 4, 4]], SIZE, "x") == 2
    alone = decode_segmentation([GOOD], *SIZE)
    assert np.array_equal(decode_segmentation([GOOD, [5, 5]], *SIZE), alone)


def test_the_short_look_at_polygons_accepts_nothing_that_the_full_check_refuses(monkeypatch):
    rng = np.random.default_rng(0)
    odd = (NAN, INF, -13, 25, 10**400, "1", True, None)
    lists = []
    for _ in range(400):
        polygons = [
            (rng.uniform(-4, 14, rng.choice([4, 6, 8])) if rng.random() < 0.9 else [])
            for _ in range(rng.integers(1, 4))
        ]
        values = [list(map(float, polygon)) for polygon in polygons]
        if rng.random() < 0.3 and values[0]:
            values[0][0] = odd[rng.integers(len(odd))]
        lists.append(values)
    lists += [[[0, 0, 11, 8, 0, 8]] * 40, [[0.0, 0.0, 11.0, 8.0] * 20]]

    short = [_verdict(polygons) for polygons in lists]
    monkeypatch.setattr(segmentations, "_plain_length", lambda polygon, size: INF)
    assert short == [_verdict(polygons) for polygons in lists]
    assert {type(verdict) for verdict in short} == {tuple, str}


def _verdict(polygons):
    try:
        return segmentations.check_polygons(polygons, SIZE, "one")
    except BrokenSample as fault:
        return str(fault)

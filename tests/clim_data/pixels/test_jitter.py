"""Large-scale jitter as a function of what is drawn, against golden case 14."""

import random

import numpy as np
import pytest
import torch
from clim_data.pixels.jitter import JitterDraw, crop_place, jitter, jittered_size
from clim_data.pixels.mask_windows import MaskWindow
from clim_data.pixels.segmentations import decode_segmentation
from golden_detectors import FAMILY, close, unpack

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CLIP = ((122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305))


def draw_of(draws, size, side):
    """The draws of a sidecar, in their order: ratio, crop height and width, offsets, flip."""
    ratio = 0.1 + 1.9 * draws[0][1]
    _, _, top, left = (number for _, number in draws[1:5])
    height, width = jittered_size(size, side, ratio)
    # The middle of each whole number's share of [0, 1).
    shares = [(top + 0.5) / (max(height - side, 0) + 1), (left + 0.5) / (max(width - side, 0) + 1)]
    return JitterDraw(ratio, *shares, draws[5][1] is not None and draws[5][1] != 0)


def normalized(view, statistics, padding):
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    left, top, right, bottom = view.window
    canvas = torch.tensor(padding)[:, None, None].expand(view.image.shape).clone()
    inside = slice(top, bottom), slice(left, right)
    canvas[:, *inside] = ((view.image.float() - mean) / std)[:, *inside]
    return canvas


def painted(view, side):
    """The masks of a view as bitmaps (n, S, S)."""
    bitmaps = torch.zeros(len(view.masks), side, side, dtype=torch.bool)
    for bitmap, mask in zip(bitmaps, view.masks, strict=True):
        left, top, right, bottom = mask.box
        bitmap[top:bottom, left:right] = torch.from_numpy(mask.pixels.copy())
    return bitmaps


@pytest.mark.parametrize("kind", ["coco", "lvis"])
@pytest.mark.parametrize("family", ["fvit", "ovdet"])
def test_golden_training_views(golden, family, kind):
    case = golden("case14_pipeline", FAMILY)
    for i in range(4):
        prefix = f"out/{family}/{kind}"
        picture = case.tensor(f"in/ovdet/{kind}/image{i}").permute(2, 0, 1)
        size = tuple(picture.shape[1:])
        boxes, labels = (
            case.tensor(f"in/ovdet/{kind}/boxes{i}"),
            case.tensor(f"in/ovdet/{kind}/labels{i}"),
        )
        masks = None
        if kind == "lvis":
            polygons = case.arrays[f"in/ovdet/{kind}/polygons{i}"].astype(np.float64)
            # One original drew the decimals of the file, the other their float32 neighbours.
            polygons = polygons.round(2) if family == "ovdet" else polygons
            drawn = [decode_segmentation([polygon], *size) for polygon in polygons.tolist()]
            masks = [MaskWindow(0, 0, mask) for mask in drawn]

        side = case.arrays[f"{prefix}/train{i}"].shape[-1]
        draw = draw_of(case.meta[f"draws_{family}"][f"{kind}{i}"], size, side)
        view = jitter(picture, boxes, draw, side, masks=masks, flip_padding=family == "ovdet")

        close(case, f"{prefix}/labels{i}", labels[view.rows])
        close(case, f"{prefix}/boxes{i}", view.boxes)
        padding = case.meta["pad_value_after_normalising_ovdet"]
        is_ovdet = family == "ovdet"
        image = normalized(view, CLIP if is_ovdet else IMAGENET, padding if is_ovdet else [0.0] * 3)
        close(case, f"{prefix}/train{i}", image)
        if masks is not None:
            expected = unpack(case.tensor(f"{prefix}/masks{i}"), side)
            assert torch.equal(painted(view, side), expected)


def test_draws_follow_their_seed_and_crops_stay_inside():
    draws = [JitterDraw.of(random.Random(seed)) for seed in range(200)]
    assert draws[3] == JitterDraw.of(random.Random(3))
    assert {draw.flip for draw in draws} == {False, True}
    places = [crop_place((70, 64), 64, draw) for draw in draws]
    assert {top for top, _ in places} == set(range(7))
    assert {left for _, left in places} == {0}
    assert crop_place((70, 64), 64, JitterDraw(top=1.0)) == (6, 0)


def test_boxes_outside_the_crop_are_dropped_and_others_clipped():
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 64, 64], [20, 20, 60, 60]])
    view = jitter(picture, boxes, JitterDraw(ratio=2.0), 64)
    assert view.rows.tolist() == [0, 2]
    torch.testing.assert_close(view.boxes, torch.tensor([[0.0, 0, 20, 20], [40, 40, 64, 64]]))
    empty = jitter(picture, boxes[:0], JitterDraw(0.5), 64)
    assert empty.boxes.shape == (0, 4)
    assert empty.window == (0, 0, 32, 32)
    assert not empty.image[:, 32:].any()


def test_masks_outside_the_crop_are_dropped_and_boxes_are_those_of_the_masks():
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 64, 64], [40, 40, 64, 64], [0, 0, 8, 8]])
    ring = np.zeros((64, 64), dtype=bool)
    ring[4:20, 6:30] = True
    ring[8:12, 10:20] = False
    # The second box reaches into the crop, but its mask does not.
    far = np.zeros((64, 64), dtype=bool)
    far[50:60, 50:60] = True
    masks = [MaskWindow(0, 0, ring), MaskWindow(40, 40, far[40:, 40:]), MaskWindow(0, 0, ~ring)]
    draw = JitterDraw(ratio=1.5, flip=True)

    view = jitter(picture, boxes, draw, 64, masks=masks)
    assert view.rows.tolist() == [0, 2]
    # Nearest neighbours of the enlarged mask, cropped to 64 x 64 and mirrored.
    rows = (np.arange(64) / 1.5).astype(int)
    expected = torch.from_numpy(ring[rows][:, rows][:, ::-1].copy())
    assert torch.equal(painted(view, 64)[0], expected)
    assert view.boxes[0].tolist() == [*view.masks[0].box]
    assert view.boxes[0].tolist() == [64 - 45, 6, 64 - 9, 30]

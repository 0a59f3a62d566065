"""Large-scale jitter as a function of what is drawn, against the golden cases of three
detectors."""

import random

import numpy as np
import pytest
import torch
from clim_data.pixels.jitter import (
    JitterDraw,
    crop_of,
    crop_place,
    cut_view,
    jitter,
    jittered_size,
    resize_bilinear,
)
from clim_data.pixels.mask_windows import MaskWindow, window_of_mask
from clim_data.pixels.segmentations import decode_segmentation
from clim_data.pixels.transforms import short_side_size
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


def painted(view):
    """The masks of a view as bitmaps, bool (n, h, w)."""
    bitmaps = torch.zeros(len(view.masks), *view.image.shape[1:], dtype=torch.bool)
    for bitmap, mask in zip(bitmaps, view.masks, strict=True):
        left, top, right, bottom = mask.box
        bitmap[top:bottom, left:right] = torch.from_numpy(mask.pixels.copy())
    return bitmaps


@pytest.mark.parametrize("kind", ["coco", "lvis"])
@pytest.mark.parametrize("family", ["fvit", "ovdet"])
def test_golden_training_views(golden, family, kind):
    case = golden("case14_pipeline", FAMILY)
    for i in case.numbers(f"in/ovdet/{kind}/image"):
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
            assert torch.equal(painted(view), expected)


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
    assert torch.equal(painted(view)[0], expected)
    assert view.boxes[0].tolist() == [*view.masks[0].box]
    assert view.boxes[0].tolist() == [64 - 45, 6, 64 - 9, 30]


def picture_of(case):
    """The annotated picture of the augmentation case: pixels, boxes, labels, masks."""
    picture = case.tensor("in/image").permute(2, 0, 1)
    masks = unpack(case.tensor("in/masks"), picture.shape[2]).numpy()
    windows = [window_of_mask(mask) for mask in masks]
    return picture, case.tensor("in/boxes"), case.tensor("in/labels"), windows


def check_view(case, prefix, view, labels, masks=True):
    """Compare a view with a golden one, which the filter resized with OpenCV."""
    found = view.image.permute(1, 2, 0).int()
    expected = case.tensor(f"{prefix}/image").int()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= case.meta["keys"][f"{prefix}/image"].get(
        "tolerance", 0
    )
    assert torch.equal(labels[view.rows], case.tensor(f"{prefix}/labels"))
    expected = case.tensor(f"{prefix}/boxes")
    torch.testing.assert_close(view.boxes, expected, atol=1e-3, rtol=0)
    if masks:
        unpacked = unpack(case.tensor(f"{prefix}/masks"), view.image.shape[2])
        assert torch.equal(painted(view), unpacked)
        areas = case.arrays[f"{prefix}/mask_area"].tolist()
        assert painted(view).sum((1, 2)).tolist() == areas


def test_golden_sizes_of_a_short_side(golden):
    case = golden("case12_augment", "detic")
    for row, new in zip(
        case.arrays["in/resize/scale_h_w"].tolist(),
        case.arrays["out/resize/new_h_w"].tolist(),
        strict=True,
    ):
        short, long = sorted(row[:2])
        assert list(short_side_size(tuple(row[2:]), short, long)) == new


def test_golden_resized_and_mirrored_views(golden):
    case = golden("case12_augment", "detic")
    picture, boxes, labels, masks = picture_of(case)
    size = tuple(picture.shape[1:])
    resized = tuple(case.arrays["out/resize/image"].shape[:2])
    view = cut_view(picture, boxes, resized, masks=masks)
    # A resize leaves the boxes of the file, which need not be those around the masks.
    by_file = cut_view(picture, boxes, resized)
    check_view(case, "out/resize", by_file, labels, masks=False)
    assert torch.equal(painted(view), unpack(case.tensor("out/resize/masks"), resized[1]))

    mirrored = cut_view(picture, boxes, size, flip=True)
    check_view(case, "out/flip", mirrored, labels, masks=False)
    view = cut_view(picture, boxes, size, flip=True, masks=masks)
    assert torch.equal(painted(view), unpack(case.tensor("out/flip/masks"), size[1]))


def test_golden_scaled_crops(golden):
    case = golden("case12_augment", "detic")
    picture, boxes, labels, masks = picture_of(case)
    draws = case.meta["data"]["draws"]
    assert {name.rstrip("0123456789") for name in draws} == {"lsj", "caption"}
    for name, draw in draws.items():
        low, high = draw["ratio_range"]
        side, ratio = draw["size"], low + (high - low) * draw["u"]
        new = jittered_size(tuple(picture.shape[1:]), side, ratio)
        spare = [max(edge - side, 0) for edge in new]
        offsets = draw["offset_y"], draw["offset_x"]
        shares = [(at + 0.5) / (left + 1) for at, left in zip(offsets, spare, strict=True)]
        crop = crop_of(new, side, JitterDraw(ratio, *shares))
        if name.startswith("lsj"):
            view = cut_view(picture, boxes, new, crop=crop, masks=masks)
            if draw["dropped_sample"]:
                # The original takes another sample; ours is a view of background.
                assert not len(view.boxes)
                continue
            check_view(case, f"out/{name}", view, labels)
        else:
            # A picture with captions is one box.
            whole = torch.tensor([[0.0, 0, picture.shape[2], picture.shape[1]]])
            view = cut_view(picture, whole, new, crop=crop)
            check_view(case, f"out/{name}", view, torch.zeros(1).long(), masks=False)


@pytest.mark.parametrize("seed", range(4))
def test_crops_are_windows_of_the_whole_resized_picture(seed):
    """Only the crop and a margin are computed. Turned pictures may round the other way."""
    rng = random.Random(seed)
    for _ in range(40):
        size = (rng.randint(20, 90), rng.randint(20, 90))
        picture = torch.randint(0, 256, (*size, 3), dtype=torch.uint8).permute(2, 0, 1)
        draw = JitterDraw.of(rng)
        side = rng.choice([32, 45, 64])
        new = jittered_size(size, side, draw.ratio)
        crop = crop_of(new, side, draw)
        found = cut_view(picture, torch.zeros(0, 4), new, crop=crop, flip=draw.flip).image

        whole = resize_bilinear(picture, new)[:, *crop]
        whole = whole.flip(-1) if draw.flip else whole
        assert (found.int() - whole.int()).abs().max() <= 1


def test_views_are_written_where_they_stay():
    picture = torch.randint(1, 256, (3, 20, 30), dtype=torch.uint8)
    draw = JitterDraw(ratio=0.7, flip=True)
    batch = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    view = jitter(picture, torch.zeros(0, 4), draw, 16, out=batch[1])
    assert torch.equal(batch[1], jitter(picture, torch.zeros(0, 4), draw, 16).image)
    assert view.image.data_ptr() == batch[1].data_ptr()
    assert not batch[0].any()

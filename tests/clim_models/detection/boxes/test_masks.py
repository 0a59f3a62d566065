"""Masks inside their boxes against whole bitmaps."""

import pytest
import torch
from clim_models.detection.boxes.masks import BoxMasks
from clim_models.detection.heads import targets
from clim_models.detection.heads.targets import Annotations, check_annotations, mask_targets

SIZE = (20, 30)


def masks_of(count=5):
    noise = torch.Generator().manual_seed(2)
    boxes, pixels, whole = [], [], torch.zeros(count, *SIZE, dtype=torch.bool)
    for i in range(count):
        left, top = 3 * i, 2 * i
        right, bottom = left + 5 + i, top + 4 + i
        bits = torch.rand(bottom - top, right - left, generator=noise) < 0.6
        whole[i, top:bottom, left:right] = bits
        boxes.append([left, top, right, bottom])
        pixels.append(bits.flatten())
    return BoxMasks(torch.tensor(boxes).float(), torch.cat(pixels), SIZE), whole


def test_masks_inside_boxes_paint_their_bitmaps():
    masks, whole = masks_of()
    assert torch.equal(masks.dense(), whole)
    assert masks.shape == whole.shape
    none = BoxMasks(torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), SIZE)
    assert none.dense().shape == (0, *SIZE)
    with pytest.raises(ValueError, match="must be whole numbers"):
        BoxMasks(masks.boxes, masks.pixels[1:], SIZE)


def test_targets_do_not_depend_on_how_masks_are_stored_or_shared_out(monkeypatch):
    masks, whole = masks_of()
    owners = torch.tensor([4, 0, 0, 2, 1, 3, 4])
    boxes = masks.boxes[owners] + torch.randn(7, 4)
    expected = mask_targets(whole, boxes, owners, 28)
    assert expected.any()
    assert not expected.all()
    assert torch.equal(mask_targets(masks, boxes, owners, 28), expected)
    monkeypatch.setattr(targets, "FLOAT_PIXELS", 2 * SIZE[0] * SIZE[1])
    assert torch.equal(mask_targets(masks, boxes, owners, 28), expected)


def test_half_a_cell_belongs_to_a_target():
    stripes = torch.tensor([True, False]).repeat(4, 2)[None]
    whole = torch.tensor([[0.0, 0, 4, 4]])
    assert mask_targets(stripes, whole, torch.tensor([0]), 2).all()


def test_annotations_take_both_kinds():
    masks, _ = masks_of()
    truth = Annotations(masks.boxes, torch.zeros(5, dtype=torch.int64), masks)
    check_annotations([truth.to(torch.device("cpu"))], SIZE, need_masks=True, num_classes=1)
    with pytest.raises(ValueError, match="pad them"):
        check_annotations([truth], (20, 31), need_masks=True, num_classes=1)
    with pytest.raises(ValueError, match=r"one .* mask per box"):
        Annotations(masks.boxes[:4], torch.zeros(4, dtype=torch.int64), masks)

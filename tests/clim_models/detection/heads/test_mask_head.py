"""Mask head, its targets and pasting, against golden case 07."""

import pytest
import torch
from clim_models.detection.boxes.roi import align_pyramid
from clim_models.detection.heads.losses import mask_loss
from clim_models.detection.heads.mask_head import WINDOW, MaskHead, paste_masks
from clim_models.detection.heads.targets import mask_targets
from golden_detectors import FAMILY, close, golden_detector, unpack


@pytest.fixture
def detector(golden):
    return golden_detector(golden("model_fvit_lvis", FAMILY))


def windows_of(case, detector):
    levels = [case.tensor(f"in/level{level}") for level in range(4)]
    return align_pyramid(levels, case.tensor("in/rois"), WINDOW, detector.backbone.strides)


def targets_of(case):
    width, side = case.meta["mask_shape"][1], case.arrays["out/targets"].shape[-1]
    rois = case.tensor("in/rois")
    found = []
    for image in case.numbers("in/gt_masks"):
        masks = unpack(case.tensor(f"in/gt_masks{image}"), width)
        boxes = rois[rois[:, 0] == image, 1:]
        found.append(mask_targets(masks, boxes, torch.arange(len(boxes)), side))
    return torch.cat(found)


def test_golden_logits_and_targets(golden, detector):
    case = golden("case07_mask", FAMILY)
    close(case, "out/eval/logits", detector.mask_head(windows_of(case, detector))[:, None])
    close(case, "out/targets", targets_of(case))


def test_golden_loss_and_gradients(golden, detector):
    case = golden("case07_mask", FAMILY)
    detector.train()
    logits = detector.mask_head(windows_of(case, detector))
    first = case.key("out/train/logits_first")
    close(case, first, logits[: len(case.arrays[first]), None])
    loss = mask_loss(logits, targets_of(case))
    close(case, "out/train/loss_mask", loss[None])
    loss.backward()
    ours = dict(detector.mask_head.named_parameters())
    names = [name.replace(".bn.", ".norm.") for name in case.meta["grad_names"]]
    names = [name.replace("conv_logits.", "logits.") for name in names]
    close(case, "out/train/grad_norms", torch.stack([ours[name].grad.norm() for name in names]))


def test_golden_pasting(golden):
    case = golden("case07_mask", FAMILY)
    height, width = case.meta["paste_size"]
    boxes, probabilities = case.tensor("in/paste/boxes"), case.tensor("in/paste/probs")
    found = paste_masks(probabilities[:, 0], boxes, (height, width))
    expected, sure = case.tensor("out/paste/masks"), case.tensor("out/paste/sure")
    assert torch.equal(found[sure], expected[sure])


def test_no_box_and_a_box_without_area_have_no_pixel():
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
    box = torch.tensor([[2.0, 2, 2, 4]])
    assert not paste_masks(torch.ones(1, 28, 28), box, (5, 6)).any()


def test_no_positive_box_gives_no_loss():
    head = MaskHead(8).train()
    loss = head(torch.zeros(0, 8, 14, 14)).sum() * 0
    loss.backward()
    assert loss == 0

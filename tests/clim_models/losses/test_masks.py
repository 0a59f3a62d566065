import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clim_models.losses.masks import (
    dice_loss,
    dice_per_mask,
    mask_bce_loss,
    mask_iou,
    mask_losses,
    resize_targets,
)
from tolerance import float32_sum

GOLDEN = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parents[2] / "golden"))
CASES = sorted(path.stem for path in (GOLDEN / "flmm" / "losses").glob("case*.json"))


def example(n=3, h=5, w=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, h, w, generator=generator), (
        torch.rand(n, h, w, generator=generator) > 0.6
    )


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_golden_losses(golden, name):
    case = golden(f"losses/{name}", "flmm")
    logits, targets = case.tensor("logits").requires_grad_(), case.tensor("gt")
    pixels = logits[0].numel()
    close = {"atol": float32_sum(pixels), "rtol": 1e-5}
    torch.testing.assert_close(
        dice_per_mask(logits, targets), case.tensor("per_mask_dice"), **close
    )
    one_by_one = [mask_bce_loss(logits[i : i + 1], targets[i : i + 1]) for i in range(len(logits))]
    torch.testing.assert_close(torch.stack(one_by_one), case.tensor("per_mask_bce"), **close)
    torch.testing.assert_close(mask_iou(logits, targets), case.tensor("iou"), **close)
    result = mask_losses([logits], [targets])
    for key in ("loss_dice", "loss_mask", "accuracy", "aiou"):
        torch.testing.assert_close(result[key].item(), case.meta[key], **close)
    (result["loss_dice"] + result["loss_mask"]).backward()
    torch.testing.assert_close(logits.grad, case.tensor("grad_logits"), atol=1e-7, rtol=1e-4)


def test_golden_cases_are_found():
    assert CASES, f"no losses/case*.json in {GOLDEN / 'flmm'}"


def test_hand_worked_values():
    logits = torch.full((1, 2, 2), -1e4)
    logits[0, 0, 0] = 1e4  # p = [1, 0, 0, 0]
    targets = torch.tensor([[[1, 1], [0, 0]]])
    assert dice_per_mask(logits, targets).tolist() == [pytest.approx(1 - 3 / 4)]
    assert mask_iou(logits, targets).tolist() == [0.5]
    assert mask_bce_loss(torch.zeros(1, 2, 2), targets).item() == pytest.approx(0.693147, abs=1e-5)


def test_images_weigh_as_many_masks_as_they_have():
    images = [example(1, seed=1), example(4, 6, 3, seed=2), example(0, 2, 2)]
    result = mask_losses([x for x, _ in images], [t for _, t in images])
    dice = torch.cat([dice_per_mask(*image) for image in images]).mean()
    pixels = [
        F.binary_cross_entropy_with_logits(x, t.float(), reduction="none").mean((1, 2))
        for x, t in images
    ]
    bce = torch.cat(pixels).mean()
    accuracy = torch.cat([((x > 0) == t).float().mean((1, 2)) for x, t in images]).mean()
    aiou = torch.cat([mask_iou(*image) for image in images]).mean()
    for key, expected in (
        ("loss_dice", dice),
        ("loss_mask", bce),
        ("accuracy", accuracy),
        ("aiou", aiou),
    ):
        torch.testing.assert_close(result[key], expected, atol=float32_sum(5 * 24), rtol=1e-5)


def test_no_masks_give_zero_and_a_gradient():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    result = mask_losses([logits], [torch.zeros(0, 9, 9)])
    assert {key: value.item() for key, value in result.items()} == dict.fromkeys(result, 0.0)
    (result["loss_dice"] + result["loss_mask"]).backward()
    assert logits.grad.shape == logits.shape


def test_targets_of_another_size_are_the_nearest_pixels():
    targets = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.uint8)
    assert resize_targets(targets, (2, 4)).tolist() == [[[1, 1, 0, 0], [0, 0, 1, 1]]]
    assert resize_targets(targets, (3, 3)).tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]
    logits = torch.randn(1, 2, 4)
    expected = mask_losses([logits], [resize_targets(targets, (2, 4))])
    assert mask_losses([logits], [targets]) == expected


def test_bfloat16_logits_are_summed_in_float32():
    logits, targets = torch.zeros(1, 64, 64, dtype=torch.bfloat16), torch.ones(1, 64, 64)
    assert dice_loss(logits, targets).item() == pytest.approx(
        1 - 4097 / 6145, abs=float32_sum(64 * 64)
    )
    assert dice_loss(logits, targets).dtype is torch.float32


def test_what_does_not_match_is_refused():
    logits, targets = example()
    with pytest.raises(ValueError, match="resize_targets"):
        dice_loss(logits, targets[:, :2])
    with pytest.raises(ValueError, match="resize_targets"):
        mask_bce_loss(logits, targets[:2])
    with pytest.raises(ValueError, match="one of each"):
        mask_losses([logits], [])
    with pytest.raises(ValueError, match="one of each"):
        mask_losses([], [])

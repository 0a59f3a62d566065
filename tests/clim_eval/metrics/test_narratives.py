"""Average recall in closed form: the original's sums, a slow sweep of thresholds, hand-worked
averages."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from clim_eval.evaluators.mask_scores import MaskScores
from clim_eval.evaluators.phrase_masks import narrative_scores
from clim_eval.metrics.masks import mask_overlaps
from clim_eval.metrics.narratives import average_recall, narrative_metrics

NAMES = {
    "aIoU": "original.AR",
    "aIoU_singulars": "original.AR_singulars",
    "aIoU_plurals": "original.AR_plurals",
    "aIoU_things": "original.AR_things",
    "aIoU_stuff": "original.AR_stuff",
    "aAcc@0.5": "original.acc@0.5",
}


def test_golden_averages_of_the_original(golden):
    case = golden("metrics/png_average_recall", "flmm")
    arrays = case.arrays
    found = narrative_metrics(
        arrays["ious"], arrays["plural"], arrays["isthing"], protocol="original"
    )
    for theirs, ours in NAMES.items():
        assert found[ours] == pytest.approx(
            case.meta["results"][theirs], abs=5e-7
        )  # some are float32
    exact = narrative_metrics(arrays["ious"], arrays["plural"], arrays["isthing"])
    assert exact["AR"] == pytest.approx(case.meta["mean_iou_for_comparison"]["all"], abs=5e-7)
    assert all(
        abs(exact[name.removeprefix("original.")] - found[name]) <= 1.1e-5
        for name in NAMES.values()
    )


@pytest.mark.parametrize("step", [1e-3, 0.01, 0.3])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_closed_form_is_the_sweep(step, kind):
    values = np.concatenate(
        [np.random.default_rng(0).random(50), [0, 1, 0.3, 0.6, step, 0.5]]
    ).astype(kind)
    thresholds = np.arange(0, 1, step)
    swept = sum(
        float((values >= kind(low)).mean()) * (high - low) for low, high in pairwise(thresholds)
    )
    assert average_recall(values, step=step) == pytest.approx(swept, abs=1e-12)


def test_exact_area_is_that_of_the_step_curve():
    # Recall is 1 up to 0.2, 2/3 up to 0.5, 1/3 up to 0.8.
    assert average_recall([0.2, 0.5, 0.8]) == pytest.approx(0.2 + 0.3 * 2 / 3 + 0.3 / 3)
    assert np.isnan(average_recall([]))
    with pytest.raises(ValueError, match="outside of"):
        average_recall([0.2, 1.5])
    with pytest.raises(ValueError, match="outside of"):
        average_recall([float("nan")])
    with pytest.raises(ValueError, match="step=0"):
        average_recall([0.5], step=0)


def test_groups_by_hand():
    found = narrative_metrics([0.2, 0.6, 1.0], [False, True, False], [True, True, False])
    expected = {
        "AR": 0.6,
        "AR_things": 0.4,
        "AR_stuff": 1.0,
        "AR_singulars": 0.6,
        "AR_plurals": 0.6,
        "acc@0.5": 2 / 3,
    }
    assert found == pytest.approx(expected)
    assert np.isnan(narrative_metrics([0.5], [False], [True])["AR_stuff"])
    with pytest.raises(ValueError, match="choose from exact, original"):
        narrative_metrics([0.5], [False], [True], protocol="theirs")


def test_from_masks_to_metrics():
    scores = MaskScores()
    true = torch.zeros(2, 4, 4)
    true[0, :2], true[1, 0, 0] = 1, 1
    logits = torch.full((2, 4, 4), -5.0)
    logits[0, 0] = 5  # half of the first mask, nothing of the second
    scores.add("a", mask_overlaps(logits, true), is_plural=[False, True], is_thing=[False, True])
    found = narrative_scores(scores)
    assert found["AR"] == 0.25
    assert found["AR_stuff"] == 0.5
    assert found["pixel_accuracy"] == pytest.approx((12 / 16 + 15 / 16) / 2)
    original = narrative_scores(scores, protocol="original")
    assert original.keys() == {f"original.{name}" for name in found}
    assert original["original.AR"] == pytest.approx(0.25 + 1e-5)

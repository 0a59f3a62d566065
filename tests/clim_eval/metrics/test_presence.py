"""Metrics of presence against slow counts of every pair and every phrase."""

import itertools

import numpy as np
import pytest
from clim_eval.metrics import (
    auroc,
    concept_scores,
    generalized_metrics,
    matthews,
    presence_accuracy,
    reliability,
    threshold_for,
)


@pytest.fixture
def phrases():
    """(scores with ties, is_present) of 60 phrases."""
    rng = np.random.default_rng(0)
    present = rng.random(60) < 0.6
    scores = np.round(np.clip(rng.random(60) * 0.7 + 0.3 * present, 0, 1), 1)
    return scores, present


def test_auroc_is_the_share_of_pairs_in_the_right_order(phrases):
    scores, present = phrases
    pairs = itertools.product(scores[present], scores[~present])
    expected = np.mean([1.0 if p > a else 0.5 if p == a else 0.0 for p, a in pairs])
    assert auroc(scores[present], scores[~present]) == pytest.approx(expected)
    assert auroc([0.9, 0.4], [0.4]) == 0.75
    assert np.isnan(auroc([], [0.1]))


def test_accuracies_at_a_threshold(phrases):
    scores, present = phrases
    found = presence_accuracy(scores, present, threshold=0.5)
    absent = [score for score, there in zip(scores, present, strict=True) if not there]
    assert found["N-acc"] == pytest.approx(sum(score < 0.5 for score in absent) / len(absent))
    assert found["T-acc"] == pytest.approx(np.mean(scores[present] >= 0.5))
    with pytest.raises(ValueError, match="pass one of each for every phrase"):
        presence_accuracy(scores[1:], present, threshold=0.5)


@pytest.mark.parametrize("t_acc", [0.5, 0.95, 1.0])
def test_the_threshold_is_the_highest_that_calls_enough_present(phrases, t_acc):
    scores = phrases[0][phrases[1]]
    reached = [s for s in np.unique(scores) if np.mean(scores >= s) >= t_acc - 1e-12]
    assert threshold_for(scores, t_acc) == max(reached)


def test_matthews_is_the_correlation_of_the_flags(phrases):
    scores, present = phrases
    expected = np.corrcoef(scores >= 0.5, present)[0, 1]
    assert matthews(scores >= 0.5, present) == pytest.approx(expected)
    assert matthews(np.ones(3, bool), [True, False, True]) == 0


def test_concept_scores_of_counted_phrases(phrases):
    scores, present = phrases
    ious = np.random.default_rng(1).random(60)
    called = scores >= 0.5
    f1 = []
    for least in np.arange(0.5, 1.0, 0.05):
        right = wrong = missed = 0
        for iou, mask, there in zip(ious, called, present, strict=True):
            if there and mask and iou >= least - 1e-9:
                right += 1
            elif there:
                wrong += mask
                missed += 1
        f1.append(2 * right / (2 * right + wrong + missed))
    found = concept_scores(ious, called, present)
    assert found["pmF1"] == pytest.approx(np.mean(f1))
    assert found["cgF1"] == pytest.approx(np.mean(f1) * matthews(called, present))


def test_calibration_of_bins_of_equal_size(phrases):
    scores, right = phrases
    found = reliability(scores, right, bins=7)
    assert found.counts.sum() == 60
    assert found.counts.max() - found.counts.min() <= 1
    order = sorted(range(60), key=lambda number: (scores[number], number))
    error = first = 0
    for count in found.counts.tolist():
        part = order[first : first + count]
        error += count * abs(np.mean(scores[part]) - np.mean(right[part])) / 60
        first += count
    assert found.error == pytest.approx(error)
    assert reliability([0.0, 1.0, 1.0], [False, True, True]).error == 0
    with pytest.raises(ValueError, match="pass probabilities, not logits"):
        reliability([2.0], [True])


def test_generalized_metrics_of_each_expression():
    # Right, wrong place, target without a mask, no target rightly, no target with a mask.
    intersections, unions = [90, 0, 0, 0, 0], [100, 50, 40, 0, 10]
    found = generalized_metrics(
        intersections, unions, [True, True, False, False, True], [True, True, True, False, False]
    )
    assert found["gIoU"] == pytest.approx((0.9 + 0 + 0 + 1 + 0) / 5)
    assert found["cIoU"] == pytest.approx(90 / 200)
    assert (found["N-acc"], found["T-acc"]) == (0.5, pytest.approx(2 / 3))
    assert found["Pr@0.7"] == found["Pr@0.8"] == pytest.approx(1 / 3)
    assert found["Pr@0.9"] == 0
    with pytest.raises(ValueError, match="for every expression"):
        generalized_metrics([1], [1], [True], [True, True])

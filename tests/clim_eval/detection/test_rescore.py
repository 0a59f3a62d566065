"""The rule that combines scores, on numbers worked out by hand."""

import numpy as np
import pytest
from clim_eval.detection.rescore import combine_scores


def test_weights_are_those_of_a_geometric_mean():
    scores, probabilities, ious = np.array([0.25, 1.0]), np.array([0.01, 0.5]), np.array([0.5, 0.5])
    # 0.25 ** 0.5 * 0.01 ** 0.5, and 1 * sqrt(0.5).
    half = combine_scores(scores, probabilities, weight=0.5)
    np.testing.assert_allclose(half, [0.05, 0.70710678])
    # 0.25 ** 0.5 * 0.01 ** 0.25 * 0.5 ** 0.25.
    three = combine_scores(scores, probabilities, ious, weight=0.25, iou_weight=0.25)
    np.testing.assert_allclose(three, [0.13295740, 0.70710678], rtol=1e-7)
    np.testing.assert_array_equal(combine_scores(scores, probabilities, weight=0.0), scores)
    np.testing.assert_array_equal(combine_scores(scores, probabilities, weight=1.0), probabilities)


@pytest.mark.parametrize("weights", [(-0.1, 0.0), (0.8, 0.3), (float("nan"), 0.0)])
def test_other_weights_are_refused(weights):
    ones = np.ones(1)
    with pytest.raises(ValueError, match="numbers from 0 whose sum is at most 1"):
        combine_scores(ones, ones, ones, weight=weights[0], iou_weight=weights[1])
    with pytest.raises(ValueError, match="without IoUs"):
        combine_scores(ones, ones, weight=0.5, iou_weight=0.5)

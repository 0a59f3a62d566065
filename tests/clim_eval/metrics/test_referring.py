"""Referring segmentation: the original's cIoU and mIoU from logits, hand-worked figures, labelled
protocols."""

import numpy as np
import pytest
from clim_eval.evaluators.mask_scores import MaskScores
from clim_eval.evaluators.phrase_masks import referring_scores
from clim_eval.metrics.masks import ious, mask_overlaps
from clim_eval.metrics.referring import referring_metrics
from clim_eval.reports.tables import show_number


def test_golden_figures_from_logits(golden):
    case = golden("metrics/res", "flmm")
    scores = MaskScores()
    for i in range(case.meta["num_images"]):
        overlaps = mask_overlaps(case.tensor(f"logits_{i}"), case.tensor(f"gt_{i}"))
        expected = np.array(case.meta["per_expression_iou"][i], dtype=float)
        found = ious(overlaps.intersections.numpy(), overlaps.unions.numpy())
        np.testing.assert_allclose(found, expected, atol=1e-6)
        scores.add(f"{i:04d}", overlaps)
    found = referring_scores(scores, protocol="original")
    assert 100 * found["original.cIoU"] == pytest.approx(case.meta["results"]["cIoU"], abs=1e-4)
    assert 100 * found["original.mIoU"] == pytest.approx(case.meta["results"]["mIoU"], abs=1e-4)


def test_figures_by_hand():
    found = referring_metrics([1, 6, 10, 0], [2, 8, 10, 5])
    assert found == pytest.approx(
        {
            "standard.cIoU": 17 / 25,
            "standard.oIoU": 17 / 25,
            "standard.mIoU": (0.5 + 0.75 + 1 + 0) / 4,
            "standard.Pr@0.5": 0.5,  # above, not at
            "standard.Pr@0.7": 0.5,
            "standard.Pr@0.9": 0.25,
        }
    )


@pytest.mark.parametrize(("rule", "mean"), [("skip", 0.5), ("zero", 0.25), ("one", 0.75)])
def test_empty_masks_count_as_asked(rule, mean):
    assert referring_metrics([1, 0], [2, 0], empty=rule)["standard.mIoU"] == mean
    assert referring_metrics([1, 0], [2, 0], empty=rule)["standard.cIoU"] == 0.5


def test_protocols_are_in_the_names_and_choose_the_rule():
    assert referring_metrics([1, 0], [2, 0])["standard.mIoU"] == 0.5
    assert referring_metrics([1, 0], [2, 0], protocol="original")["original.mIoU"] == 0.25
    assert all(np.isnan(value) for value in referring_metrics([], []).values())


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="choose from standard, original"):
        referring_metrics([1], [2], protocol="mine")
    with pytest.raises(ValueError, match="choose from skip, zero, one"):
        referring_metrics([1], [2], empty="drop")
    with pytest.raises(ValueError, match="pass counts of pixels"):
        referring_metrics([3], [2])


@pytest.mark.parametrize(
    "name", ["refcoco_val.standard.Pr@0.7", "original.cIoU", "AR_things", "acc@0.5", "AR"]
)
def test_reports_show_the_figures_in_percent(name):
    assert show_number(name, 0.5) == "50.00 %"

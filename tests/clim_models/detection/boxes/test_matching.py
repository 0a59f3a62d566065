"""Matching and sampling, compared with slow loops, and rules that are refused."""

import pytest
import torch
from clim_models.detection.boxes.anchors import AnchorRules, anchor_boxes
from clim_models.detection.boxes.matching import (
    IGNORED,
    NEGATIVE,
    MatchRules,
    SampleRules,
    match_boxes,
    sample_matches,
)
from torchvision.ops import box_iou


def random_boxes(number, generator):
    """Boxes on a coarse grid: many overlap equally, and some exactly as much as a rule says."""
    corner = torch.randint(0, 5, (number, 2), generator=generator)
    side = torch.randint(1, 5, (number, 2), generator=generator)
    return 10.0 * torch.cat([corner, corner + side], 1)


def slow_matches(boxes, annotated, rules):
    overlaps = box_iou(annotated, boxes)
    matches = []
    for column in overlaps.T:
        best = int(column.argmax())
        is_negative = column[best] < rules.negative
        matches.append(NEGATIVE if is_negative else IGNORED)
        if column[best] >= rules.positive:
            matches[-1] = best
    if rules.best_of_annotation is not None:
        for number, row in enumerate(overlaps):
            if row.max() >= rules.best_of_annotation:
                for i in (row == row.max()).nonzero()[:, 0].tolist():
                    matches[i] = number
    return matches


@pytest.mark.parametrize("rules", [MatchRules(0.75, 0.25, 0.25), MatchRules(0.5, 0.5)])
def test_matches_equal_a_slow_loop(rules):
    generator, overlaps = torch.Generator().manual_seed(1), set()
    for _ in range(5):
        boxes, annotated = random_boxes(40, generator), random_boxes(6, generator)
        overlaps.update(box_iou(annotated, boxes).amax(0).tolist())
        assert match_boxes(boxes, annotated, rules).tolist() == slow_matches(
            boxes, annotated, rules
        )
    assert {rules.positive, rules.negative} <= overlaps


def test_without_annotations_or_area_everything_is_negative():
    boxes = torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 4]])
    assert match_boxes(boxes, torch.zeros(0, 4), MatchRules(0.5, 0.5)).tolist() == [NEGATIVE] * 2
    assert match_boxes(boxes, boxes[:1], MatchRules(0.5, 0.5)).tolist() == [NEGATIVE] * 2


def test_samples_follow_the_priorities():
    matches = torch.tensor([0, 1, 2, NEGATIVE, NEGATIVE, NEGATIVE, IGNORED])
    priorities = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.8, 0.7, 0.99])
    sampled = sample_matches(matches, priorities, SampleRules(4, 0.5))
    assert sampled.tolist() == [False, True, True, False, True, True, False]
    # Negatives take the place of positives that are not there.
    few = sample_matches(matches.clamp(max=0), priorities, SampleRules(5, 0.2))
    assert few.sum() == 4
    batch = sample_matches(matches.expand(2, -1), priorities.expand(2, -1), SampleRules(4, 0.5))
    assert torch.equal(batch[1], sampled)


def test_wrong_rules_are_refused():
    with pytest.raises(ValueError, match="negative <= positive"):
        MatchRules(0.3, 0.7)
    with pytest.raises(ValueError, match="at least 1"):
        SampleRules(0, 0.5)
    with pytest.raises(ValueError, match="all above 0"):
        AnchorRules((4.0, 0.0))
    with pytest.raises(ValueError, match="one stride per level"):
        anchor_boxes([(2, 2)], AnchorRules((4.0, 8.0)), torch.device("cpu"))

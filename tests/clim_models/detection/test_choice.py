"""Which boxes are returned, and their coding, against the golden case 14."""

import pytest
import torch
from clim_models.detection import DetectionRules
from clim_models.detection.boxes.coding import apply_deltas, box_deltas, clip_to
from clim_models.detection.choice import choose_boxes
from golden_detectors import close
from golden_detic import FAMILY


@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_golden_choice(golden, kind):
    case = golden("case14_postprocess", FAMILY)
    config = case.meta["config"]
    prefix, stage = ("", 0) if kind == "coco" else ("lvis_", -1)
    scores = case.tensor("in/logits").sigmoid() if kind == "coco" else case.tensor("in/lvis_scores")
    rois, deltas = case.tensor(f"in/{prefix}rois"), case.tensor(f"in/{prefix}deltas")
    moved = apply_deltas(rois[:, 1:], deltas, config["stds"][stage])
    moved = clip_to(moved, tuple(config["img_shape"]))
    for name, rules in config[f"ov_{kind}"].items():
        boxes = moved / moved.new_tensor(rules.get("scale_factor", [1.0, 1.0]) * 2)
        limits = (rules.get("nms", 0.5), rules.get("max_per_img", 100))
        rules = DetectionRules(min(rules["score_thr"], 1.0), *limits)
        found = choose_boxes(boxes, scores[:, :-1], rules)
        for part in ("boxes", "scores", "labels"):
            close(case, f"out/{kind}_{name}/{part}", getattr(found, part))


def test_golden_coding(golden):
    case = golden("case14_postprocess", FAMILY)
    boxes, stages = case.tensor("in/rois")[:, 1:], case.meta["config"]["stds"]
    deltas = widened_deltas(case)
    for stage, stds in enumerate(stages):
        moved = apply_deltas(boxes, deltas, stds)
        close(case, f"out/coder{stage}/decoded_unclipped", moved)
        clipped = clip_to(moved, tuple(case.meta["config"]["img_shape"]))
        close(case, f"out/coder{stage}/decoded", clipped)
    assert torch.isfinite(moved).all()


def widened_deltas(case):
    """The deltas that the original decoded: `in/deltas`, all multiplied by the same number.

    The sidecar leaves the number out. All deltas, three times in `decoded_unclipped`, are to agree
    with it, so one of them gives it.
    """
    boxes, given = case.tensor("in/rois")[:, 1:], case.tensor("in/deltas")
    largest = given.abs().argmax()
    moved = case.tensor("out/coder0/decoded_unclipped")
    found = box_deltas(boxes, moved, case.meta["config"]["stds"][0])
    return given * (found.flatten()[largest] / given.flatten()[largest])


def test_golden_encoding(golden):
    case = golden("case14_postprocess", FAMILY)
    boxes, stages = case.tensor("in/rois")[:, 1:], case.meta["config"]["stds"]
    count = len(case.arrays["out/coder0/encoded"])
    # The sidecar does not name the targets: they are other boxes of the case, which decoding finds.
    encoded = case.tensor("out/coder0/encoded")
    reached = apply_deltas(boxes[:count], encoded, stages[0])
    distances = (reached[:, None] - boxes).abs().amax(-1)
    assert distances.amin(1).max() < 1e-3
    targets = boxes[distances.argmin(1)]
    for stage, stds in enumerate(stages):
        close(case, f"out/coder{stage}/encoded", box_deltas(boxes[:count], targets, stds))


def test_golden_limits_of_deltas(golden):
    case = golden("case14_postprocess", FAMILY)
    stages = case.meta["config"]["stds"]
    extreme = [case.tensor(f"out/coder{stage}/decoded_extreme") for stage in range(len(stages))]
    boxes = case.tensor("in/rois")[: len(extreme[0]), 1:]
    # The sidecar does not name the deltas. The smallest stds limit the fewest of them, and those
    # that even they limit are limited by all.
    deltas = box_deltas(boxes.double(), extreme[-1].double(), stages[-1])
    for stage, stds in enumerate(stages):
        found = apply_deltas(boxes, deltas, stds)
        # Boxes of thousands of pixels: some roundings are as large as the tolerance.
        tolerance = case.meta["keys"][f"out/coder{stage}/decoded_extreme"]["tolerance"]
        rounding = 4 * torch.finfo(torch.float32).eps
        torch.testing.assert_close(found, extreme[stage], atol=tolerance, rtol=rounding)
    sides = (extreme[0][:, 2:] - extreme[0][:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    assert sides.max().item() == pytest.approx(1000 / 16, rel=1e-4)
    assert sides.min().item() == pytest.approx(16 / 1000, rel=1e-3)

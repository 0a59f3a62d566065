"""Which boxes are returned, and their coding, against the golden case 14."""

import pytest
import torch
from clim_models.detection import DetectionRules
from clim_models.detection.boxes.coding import apply_deltas, clip_to
from clim_models.detection.choice import choose_boxes
from golden_detectors import close
from golden_detic import FAMILY


@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_golden_choice(golden, kind):
    case = golden("case14_postprocess", FAMILY)
    config = case.meta["config"]
    prefix, stage = ("", 0) if kind == "coco" else ("lvis_", 2)
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
    boxes = case.tensor("in/rois")[:, 1:]
    # The original decoded larger deltas than it was given for the detections.
    deltas = 3 * case.tensor("in/deltas")
    for stage, stds in enumerate(case.meta["config"]["stds"]):
        moved = apply_deltas(boxes, deltas, stds)
        close(case, f"out/coder{stage}/decoded_unclipped", moved)
        clipped = clip_to(moved, tuple(case.meta["config"]["img_shape"]))
        close(case, f"out/coder{stage}/decoded", clipped)
    assert torch.isfinite(moved).all()

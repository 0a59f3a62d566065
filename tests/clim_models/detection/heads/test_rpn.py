"""Region proposal network, against the golden cases 03 and 04."""

import re
from dataclasses import replace

import pytest
import torch
from clim_models.detection.boxes.coding import HEAD_STDS, apply_deltas, box_deltas, clip_to
from clim_models.detection.boxes.matching import SampleRules, match_boxes
from clim_models.detection.heads.rpn import ProposalRules
from golden_detectors import FAMILY, close, golden_detector


@pytest.fixture
def rpn(golden):
    return golden_detector(golden("model_fvit_coco", FAMILY)).rpn


def levels_of(case):
    names = sorted(key for key in case.arrays if key.startswith("in/level"))
    return [case.tensor(name) for name in names]


def limits_of(case):
    return torch.tensor([shape[:2] for shape in case.meta["config"]["img_shapes"]]).float()


def test_golden_scores_and_anchors(golden, rpn):
    case = golden("case03_rpn", FAMILY)
    levels = levels_of(case)
    scores = rpn(levels)
    start = 0
    for i, (level, count) in enumerate(zip(levels, scores.counts, strict=True)):
        rows, columns = level.shape[-2:]
        here = slice(start, start + count)
        logits = scores.logits[:, here].view(len(level), rows, columns, -1)
        deltas = scores.deltas[:, here].reshape(len(level), rows, columns, -1)
        close(case, f"out/cls{i}", logits.permute(0, 3, 1, 2))
        close(case, f"out/reg{i}", deltas.permute(0, 3, 1, 2))
        close(case, f"out/anchors{i}", scores.anchors[here])
        start += count


def test_golden_decoding(golden, rpn):
    case = golden("case03_rpn", FAMILY)
    scores, limits = rpn(levels_of(case)), limits_of(case)
    keys = [key for key in case.arrays if key.startswith("out/decoded_level")]
    assert keys
    for key in keys:
        level, image = map(int, re.findall(r"\d+", key))
        start = sum(scores.counts[:level])
        here = slice(start, start + scores.counts[level])
        boxes = apply_deltas(scores.anchors[here], scores.deltas[image, here])
        close(case, key, clip_to(boxes, limits[image]))


def test_golden_coder(golden):
    case = golden("case03_rpn", FAMILY)
    anchors, targets = case.tensor("in/coder/anchors"), case.tensor("in/coder/gt")
    moved = apply_deltas(anchors, case.tensor("in/coder/deltas"))
    close(case, "out/coder/no_clip", moved)
    for key in case.arrays:
        if key.startswith("out/coder/clip_"):
            width, height = key.removeprefix("out/coder/clip_").split("x")
            close(case, key, clip_to(moved, (float(height), float(width))))
    close(case, "out/coder/encoded", box_deltas(anchors, targets))
    close(case, "out/coder/encoded_head", box_deltas(anchors, targets, HEAD_STDS))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_proposals(golden, rpn, mode):
    case = golden("case03_rpn", FAMILY)
    config = case.meta["config"]
    rules = ProposalRules(config["nms_pre"], config["max_per_img"], config["iou_threshold"])
    assert rpn.rules.testing == rules
    assert rpn.rules.training == rules
    # This network has no norms, so both modes give the same numbers.
    rpn.train(mode == "train")
    proposals = rpn.propose(rpn(levels_of(case)), limits_of(case))
    for image, found in enumerate(proposals):
        close(case, f"out/proposals{image}", torch.cat([found.boxes, found.scores[:, None]], 1))


def test_golden_matches(golden, rpn):
    case = golden("case04_rpn_loss", FAMILY)
    scores = rpn(levels_of(golden("case03_rpn", FAMILY)))
    for image in range(len(scores.logits)):
        matches = match_boxes(scores.anchors, case.tensor(f"in/gt{image}"), rpn.rules.match)
        # The original: 0 is negative, -1 ignored, k is annotation k - 1.
        ours = torch.where(matches >= 0, matches + 1, torch.where(matches == -1, 0, -1))
        close(case, f"out/assign{image}", ours)


def priorities_of(case, name, like):
    """Everything trains, or the anchors that the original drew have the highest priority."""
    if name == "all":
        return None
    found = torch.zeros_like(like)
    for image, row in enumerate(found):
        for part in ("pos", "neg"):
            row[case.tensor(f"in/sample{image}/{part}")] = 0.9
    return found


@pytest.mark.parametrize("name", ["all", "sampled"])
def test_golden_losses(golden, rpn, name):
    case = golden("case04_rpn_loss", FAMILY)
    scores = rpn(levels_of(golden("case03_rpn", FAMILY)))
    if name == "all":
        rules = SampleRules(scores.logits.shape[1] * 2, 0.5)
    else:
        drawn = [
            sum(len(case.arrays[f"in/sample{image}/{part}"]) for part in ("pos", "neg"))
            for image in case.numbers("in/gt")
        ]
        rules = SampleRules(max(drawn), 0.5)
    rpn.rules = replace(rpn.rules, sample=rules)

    annotated = [case.tensor(f"in/gt{image}") for image in range(len(scores.logits))]
    losses = rpn.losses(scores, annotated, priorities_of(case, name, scores.logits))
    for key, value in losses.items():
        close(case, f"out/{name}/{key}", value)

    sum(value.sum() for value in losses.values()).backward()
    ours = dict(rpn.named_parameters())
    names = {"rpn_conv": "convs", "rpn_cls": "objectness", "rpn_reg": "deltas"}
    norms = []
    for key in case.meta["grad_names"]:
        part, _, rest = key.partition(".")
        norms.append(ours[f"{names[part]}.{rest}"].grad.norm())
    close(case, f"out/{name}/grad_norms", torch.stack(norms))
    if name == "all":
        close(case, "out/all/grad_rpn_cls_weight", rpn.objectness.weight.grad)


def test_images_without_boxes_train_as_background(rpn):
    scores = rpn([torch.randn(2, rpn.convs[0].conv.in_channels, 8, 8)] * 5)
    losses = rpn.losses(scores, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert losses["loss_rpn_bbox"].sum() == 0
    sum(value.sum() for value in losses.values()).backward()
    assert all(p.grad is not None for p in rpn.parameters())

"""Frozen-CLIP detectors as a whole, against the golden cases 11 to 13."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import Annotations, EnsembleRules, FrozenClipOptions
from clim_models.detection.features.nas_fpn import NASFPN
from clim_models.detection.heads.box_head import WINDOW
from clim_models.detection.heads.ensemble import combine_scores
from clim_models.detection.heads.text_classifier import Background, TextClassifier
from device import DEVICE
from golden_detection_runs import check_detections, check_losses, check_masks
from golden_detectors import FAMILY, close, frames_of, golden_detector, unpack

CASES = {
    "case11_ovdet_vit": "model_ovdet_vit_fpn",
    "case12_ovdet_nasfpn": "model_ovdet_vit_nasfpn",
    "case13_ovdet_resnet": "model_ovdet_resnet",
}


@pytest.fixture(params=CASES)
def run(golden, request):
    """(case, detector, frames) of one golden case."""
    case = golden(request.param, FAMILY)
    detector = golden_detector(golden(CASES[request.param], FAMILY))
    about = case.meta["metainfo"]
    padded = case.arrays["in/x"].shape[-2:]
    frames = frames_of(
        [one["img_shape"] for one in about], padded, [one["ori_shape"] for one in about]
    )
    return case, detector, frames


def test_golden_maps(run):
    case, detector, _ = run
    maps = detector.backbone(case.tensor("in/x"), with_clip=True)
    for level, feature_map in enumerate(maps.pyramid):
        close(case, f"out/map{level}", feature_map[:1])
    if "out/dense" in case.arrays:
        close(case, "out/dense", maps.clip)
    for level, found in enumerate(detector.neck(maps.pyramid)):
        close(case, f"out/neck{level}", found)
    rois = case.tensor("in/rois")
    close(case, "out/clip_pool", F.normalize(detector.backbone.region_features(maps.clip, rois)))


def test_golden_scores(run):
    case, detector, _ = run
    maps = detector.backbone(case.tensor("in/x"), with_clip=True)
    levels = detector.neck(maps.pyramid)
    rois = case.tensor("in/rois")
    scores, deltas = detector.score_boxes(maps, levels, rois)
    close(case, "out/scores", scores)
    close(case, "out/deltas", deltas)

    head, embeddings = detector.box_head, detector.classes.embeddings
    outputs = head(detector._windows(levels, rois, WINDOW))
    close(case, "out/region_embedding", outputs.features)
    close(case, "out/background", head.classifier.background()[None])
    logits = head.classifier(outputs.features, embeddings)
    own = head.classifier.cosines(case.tensor("in/syn/clip_embeddings"), embeddings)
    found = combine_scores(logits, own, detector.classes.is_base, detector.rules.ensemble)
    close(case, "out/syn/scores", found)


def test_golden_backgrounds(golden):
    case = golden("case11_ovdet_vit", FAMILY)
    model = golden("model_ovdet_vit_fpn", FAMILY)
    detector = golden_detector(model)
    maps = detector.backbone(case.tensor("in/x"), with_clip=True)
    levels, rois = detector.neck(maps.pyramid), case.tensor("in/rois")
    head, start = detector.box_head, case.tensor("in/variant/clip/bg_embedding")[0]
    temperature = head.classifier.temperature.item()
    # The golden scores of a background of zeros repeat those of the given one, so they are not read.
    head.classifier = TextClassifier(Background("fixed", len(start), start), temperature)
    close(case, "out/variant/clip/scores", detector.score_boxes(maps, levels, rois)[0])

    head.classifier = TextClassifier(Background("zero", len(start)), temperature)
    logits = head.classifier(torch.randn(3, len(start)), detector.classes.embeddings)
    assert torch.equal(logits[:, -1], torch.zeros(3))


def test_golden_classes_that_are_left_out(golden):
    """The original gives them the score 0; here they have no column."""
    case = golden("case11_ovdet_vit", FAMILY)
    model = golden("model_ovdet_vit_fpn", FAMILY)
    neither = model.meta["config"]["sizes"]["neither_base_nor_novel_indices"]
    detector = golden_detector(model)
    fewer = detector.with_classes(detector.classes.without(neither))
    maps = fewer.backbone(case.tensor("in/x"), with_clip=True)
    scores, _ = fewer.score_boxes(maps, fewer.neck(maps.pyramid), case.tensor("in/rois"))
    key = "out/variant/invalid/scores"
    expected = case.tensor(key)
    left = [column for column in range(expected.shape[1]) if column not in neither]
    tolerance = case.meta["keys"][key]["tolerance"]
    torch.testing.assert_close(scores, expected[:, left], atol=tolerance, rtol=0)


@pytest.mark.device
def test_golden_proposals_and_detections(run):
    case, detector, frames = run
    detector.to(DEVICE)
    # The cases give the sizes of the resized pictures as limits, without the padding.
    images = replace(detector.rules.images, clip_to_padding=False)
    detector.rules = replace(detector.rules, images=images)
    x = case.tensor("in/x").to(DEVICE)
    levels = detector.neck(detector.backbone(x, with_clip=False).pyramid)
    proposals = detector.rpn.propose(detector.rpn(levels), detector.limits_of(frames, x.device))
    for i, found in enumerate(proposals):
        close(case, f"out/proposals{i}", torch.cat([found.boxes, found.scores[:, None]], 1))

    for i, found in enumerate(detector(x, frames)):
        check_detections(case, "out/pred", i, found)
        if found.masks is not None:
            check_masks(case, "out/pred", i, found)


@pytest.mark.device
def test_golden_training_step(run):
    case, detector, frames = run
    detector.to(DEVICE)
    images = replace(detector.rules.images, clip_to_padding=False)
    detector.rules = replace(detector.rules, images=images)
    truths = []
    for i in case.numbers("in/gt"):
        masks = None
        if f"in/masks{i}" in case.arrays:
            masks = unpack(case.tensor(f"in/masks{i}"), case.arrays["in/x"].shape[-1])
        truths.append(Annotations(case.tensor(f"in/gt{i}"), case.tensor(f"in/labels{i}"), masks))
    check_losses(case, "out/train", detector, case.tensor("in/x").to(DEVICE), frames, truths)


def test_odd_sizes_and_unknown_necks():
    neck = NASFPN([4] * 4, 4, 2).eval()
    maps = [torch.randn(1, 4, size, size + 3) for size in (20, 10, 5, 2)]
    assert [x.shape[2:] for x in neck(maps)[:4]] == [x.shape[2:] for x in maps]
    with pytest.raises(ValueError, match="legal values are 'fpn' and 'nas_fpn'"):
        FrozenClipOptions(image_size=32, ensemble=EnsembleRules(0.1, 0.8, 75), neck="bifpn")

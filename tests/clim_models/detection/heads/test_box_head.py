"""Box head, its targets, losses and scores, against the golden cases 05, 06 and 08."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import fvit_names
from clim_models.detection.boxes.coding import HEAD_STDS, apply_deltas, clip_to
from clim_models.detection.boxes.matching import MatchRules, SampleRules, match_boxes
from clim_models.detection.boxes.roi import align_map, align_pyramid, level_of_boxes
from clim_models.detection.choice import choose_boxes
from clim_models.detection.features.backbone import BackboneMaps
from clim_models.detection.heads.box_head import WINDOW, BoxHead, BoxHeadRules
from clim_models.detection.heads.ensemble import EnsembleRules, combine_scores
from clim_models.detection.heads.losses import box_loss, classification_loss
from clim_models.detection.heads.targets import Annotations, sample_boxes
from clim_models.detection.heads.text_classifier import Background, ClassSet, TextClassifier
from clim_models.detection.images import ImageFrame
from golden_detection_runs import our_name
from golden_detectors import FAMILY, close, golden_detector


@pytest.fixture
def detector(golden):
    return golden_detector(golden("model_fvit_coco", FAMILY))


def levels_of(golden):
    case = golden("case03_rpn", FAMILY)
    return [case.tensor(f"in/level{level}") for level in range(4)]


def windows_of(golden, detector, rois):
    return align_pyramid(levels_of(golden), rois, WINDOW, detector.backbone.strides)


def test_golden_levels_and_windows(golden, detector):
    case = golden("case05_box_cls", FAMILY)
    rois = case.tensor("in/map/rois")
    maps = [case.tensor(f"in/map/level{level}") for level in range(4)]
    size = case.arrays["out/map/feats"].shape[-1]
    close(case, "out/map/levels", level_of_boxes(rois[:, 1:], 4))
    close(case, "out/map/feats", align_pyramid(maps, rois, size, detector.backbone.strides))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_logits_and_boxes(golden, detector, mode):
    case = golden("case05_box_cls", FAMILY)
    rois = case.tensor("in/rois")
    windows = windows_of(golden, detector, rois)
    first = case.key("out/roi_feats_first")
    close(case, first, windows[: len(case.arrays[first])])

    detector.train(mode == "train")
    outputs = detector.box_head(windows)
    logits = detector.box_head.classifier(outputs.features, detector.classes.embeddings)
    close(case, f"out/{mode}/logits", logits)
    close(case, f"out/{mode}/deltas", outputs.deltas)
    if mode == "eval":
        close(case, "out/eval/cls_feature", outputs.features)
        close(case, "out/eval/decoded", apply_deltas(rois[:, 1:], outputs.deltas, HEAD_STDS))


def test_golden_learned_background(golden, detector):
    case = golden("case05_box_cls", FAMILY)
    start = case.tensor("in/learn_bg/bg_embedding")[:, 0]
    background = Background("learned", len(start), start)
    assert list(dict(background.named_parameters())) == ["embedding"]
    temperature = detector.box_head.classifier.temperature.item()
    classifier = TextClassifier(background, temperature)
    outputs = detector.box_head(windows_of(golden, detector, case.tensor("in/rois")))
    logits = classifier(outputs.features, detector.classes.embeddings)
    close(case, "out/learn_bg/logits", logits)


def original(matches):
    """The original counts annotations from 1; 0 is negative."""
    return matches + 1


@pytest.mark.parametrize("kind", ["coco", "lvis"])
def test_golden_matches(golden, kind):
    case = golden("case06_box_loss", FAMILY)
    rules = golden_detector(golden(f"model_fvit_{kind}", FAMILY)).rules.match
    for image in case.numbers("in/gt"):
        proposals, boxes = case.tensor(f"in/proposals{image}"), case.tensor(f"in/gt{image}")
        close(case, f"out/assign_{kind}/{image}", original(match_boxes(proposals, boxes, rules)))
    low = case.tensor("in/low/proposals"), case.tensor("in/low/gt")
    key = f"out/low/assign_{rules.best_of_annotation is not None}".lower()
    close(case, key, original(match_boxes(*low, rules)))


def sampled_of(case, detector):
    rules = (detector.rules.match, detector.rules.sample)
    found = []
    for image in case.numbers("in/gt"):
        truth = Annotations(case.tensor(f"in/gt{image}"), case.tensor(f"in/labels{image}"))
        proposals = case.tensor(f"in/proposals{image}")
        found.append(sample_boxes(proposals, truth, detector.classes.num_columns, rules))
    return found


def test_golden_targets(golden, detector):
    case = golden("case06_box_loss", FAMILY)
    sampled = sampled_of(case, detector)
    rows = [F.pad(one.boxes, (1, 0), value=i) for i, one in enumerate(sampled)]
    torch.testing.assert_close(torch.cat(rows), case.tensor("out/rois"))
    close(case, "out/labels", torch.cat([one.labels for one in sampled]))
    close(case, "out/bbox_targets", torch.cat([one.targets for one in sampled]))
    assert sum(one.positives for one in sampled) == case.meta["positives"]


def test_golden_losses_and_gradients(golden, detector):
    case = golden("case06_box_loss", FAMILY)
    detector.train()
    head = detector.box_head
    outputs = head(windows_of(golden, detector, case.tensor("out/rois")))
    logits = head.classifier(outputs.features, detector.classes.embeddings)
    logits.retain_grad()
    close(case, "out/logits", logits)
    close(case, "out/deltas", outputs.deltas)

    weights = detector.classes.weights(detector.rules.background_weight)
    assert weights.tolist() == pytest.approx(case.meta["config"]["class_weight"])
    labels = case.tensor("out/labels")
    loss, accuracy = classification_loss(logits, labels, weights)
    positive = labels < detector.classes.num_columns
    distance = box_loss(outputs.deltas, case.tensor("out/bbox_targets"), positive)
    close(case, "out/loss_cls", loss)
    close(case, "out/loss_bbox", distance)
    close(case, "out/acc", accuracy[None])

    (loss + distance).backward()
    close(case, "out/grad_logits", logits.grad)
    close(case, "out/grad_temperature", head.classifier.temperature.grad)

    ours = dict(detector.named_parameters())
    names = [f"roi_head.bbox_head.{name}" for name in case.meta["grad_names"]]
    norms = [ours[our_name(name, fvit_names)].grad.norm() for name in names]
    close(case, "out/grad_norms", torch.stack(norms))


def test_golden_ensemble(golden, detector):
    case, before = golden("case08_ensemble", FAMILY), golden("case01_pyramid", FAMILY)
    rois = golden("case05_box_cls", FAMILY).tensor("in/rois")
    dense = before.tensor("out/eval/dense")
    features = align_map(dense, rois, 1, detector.backbone.model.stride).flatten(1)
    close(case, "out/vlm_feats", features)
    close(case, "out/vlm_feats", detector.backbone.region_features(dense, rois))

    maps = BackboneMaps(levels_of(golden), dense)
    scores, _ = detector.score_boxes(maps, levels_of(golden), rois)
    close(case, "out/scores", scores)

    head, embeddings = detector.box_head, detector.classes.embeddings
    outputs = head(windows_of(golden, detector, rois))
    logits = head.classifier(outputs.features, embeddings)
    own = head.classifier.cosines(features, embeddings)
    close(case, "out/det_prob", logits.softmax(-1))
    rules = detector.rules.ensemble
    close(case, "out/vlm_prob", (rules.temperature * own).softmax(-1))

    synthetic = head.classifier.cosines(case.tensor("in/syn/vlm_feats"), embeddings)
    is_base = detector.classes.is_base
    close(case, "out/syn/scores", combine_scores(logits, synthetic, is_base, rules))

    about = case.meta["transfer"]
    transfer = EnsembleRules(about["alpha"], about["alpha"], about["vlm_temperature"])
    fixed = TextClassifier(
        head.classifier.background, about["fixed_temperature"], fixed_temperature=True
    )
    logits = fixed(outputs.features, embeddings)
    assert not list(fixed.background.parameters())
    close(case, "out/transfer/scores", combine_scores(logits, own, is_base, transfer))


def test_golden_final_boxes(golden, detector):
    case = golden("case08_ensemble", FAMILY)
    rois = golden("case05_box_cls", FAMILY).tensor("in/rois")
    rois = rois[rois[:, 0] == 0]
    maps = BackboneMaps([], golden("case01_pyramid", FAMILY).tensor("out/eval/dense"))
    scores, deltas = detector.score_boxes(maps, levels_of(golden), rois)

    height, width = case.tensor("in/final/img_shape").tolist()
    scale = case.tensor("in/final/scale_factor")
    picture = (round(height / scale[1].item()), round(width / scale[0].item()))
    frame = ImageFrame(picture, (height, width), (height, width))
    expected = case.tensor("out/final/dets")
    rules = replace(detector.rules.detections, per_image=len(expected))

    boxes = clip_to(apply_deltas(rois[:, 1:], deltas, HEAD_STDS), (height, width))
    found = choose_boxes(boxes / scale, scores[:, : detector.classes.num_classes], rules)
    close(case, "out/final/dets", torch.cat([found.boxes, found.scores[:, None]], 1))
    close(case, "out/final/labels", found.labels)
    torch.testing.assert_close(frame.to_picture(boxes), boxes / scale)


def test_zero_features_and_boxes_without_area_give_finite_scores():
    classifier = TextClassifier(Background("zero", 4))
    logits = classifier(torch.zeros(2, 4), torch.eye(4)[:3])
    assert torch.equal(logits, torch.zeros(2, 4))
    scores = combine_scores(
        logits, logits, torch.tensor([True, False, False]), EnsembleRules(0.1, 0.8, 50)
    )
    assert scores.isfinite().all()


def test_scores_are_not_rounded_under_autocast():
    features, embeddings = torch.randn(5, 16), F.normalize(torch.randn(3, 16), dim=1)
    classifier = TextClassifier(Background("linear", 16))
    expected = classifier(features, embeddings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = classifier(features, embeddings)
    assert torch.equal(found, expected)


def test_what_cannot_train_or_classify_is_refused():
    with pytest.raises(ValueError, match="no base class"):
        ClassSet(["cat"], torch.ones(1, 4)).weights(0.6)
    with pytest.raises(ValueError, match="'cat'"):
        ClassSet(["cat", "cat"], torch.ones(2, 4))
    with pytest.raises(ValueError, match="without embedding"):
        ClassSet(["cat", "dog"], torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"\['dog'\] have no embedding"):
        ClassSet(["cat", "dog"], torch.tensor([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="pass labels from 0 to 0"):
        ClassSet(["cat"], torch.ones(1, 4), base=[1])
    with pytest.raises(ValueError, match="needs an embedding"):
        Background("fixed", 4)
    with pytest.raises(ValueError, match="pass width=4 or project=True"):
        BoxHead(8, TextClassifier(Background("zero", 4)), BoxHeadRules(width=6, project=False))
    with pytest.raises(ValueError, match="no area"):
        Annotations(torch.tensor([[0.0, 0, 0, 5]]), torch.tensor([0]))


def test_classes_can_be_left_out():
    classes = ClassSet(["a", "b", "c"], torch.eye(4), base=[2])
    fewer = classes.without([1])
    assert fewer.names == ("a", "c")
    assert fewer.base == (1,)
    assert torch.equal(fewer.embeddings, torch.eye(4)[[0, 2, 3]])


def test_samples_hold_at_most_the_allowed_positives():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(6, 1)
    far = torch.tensor([[50.0, 50, 60, 60]]).repeat(6, 1)
    truth = Annotations(boxes[:1], torch.tensor([3]))
    rules = (MatchRules(0.5, 0.5), SampleRules(8, 0.25))
    found = sample_boxes(torch.cat([boxes, far]), truth, 9, rules)
    assert found.labels.tolist() == [3, 3] + [9] * 6
    assert found.targets.abs().sum() == 0

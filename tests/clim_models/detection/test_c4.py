"""The C4 detector of Detic + CLIM, against the golden cases 02 and 03."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import (
    Annotations,
    ClassSet,
    DetectionRules,
    Priorities,
    SigmoidRules,
    c4,
)
from clim_models.detection.batches import BatchRules
from clim_models.detection.boxes.coding import box_deltas
from clim_models.detection.boxes.roi import align_map
from clim_models.detection.c4 import STRIDE, WINDOW, C4BoxHead, C4Detector, C4Options
from clim_models.detection.detic_names import c4_names
from clim_models.detection.features.resnet import EXPANSION, ResNetRules
from clim_models.detection.heads import rpn
from clim_models.detection.heads.losses import proposal_losses
from device import DEVICE
from golden_detectors import close, record, samples_of
from golden_detic import (
    FAMILY,
    captioned,
    check_gradients,
    check_proposals,
    check_queue,
    check_sampled,
    classes_of,
    fill_queue,
    frames_of_samples,
    image_level_rules,
    images_of,
    load,
    priority_of,
    proposals_of,
    sizes_of,
)
from open_clip import tokenize
from open_clip.transformer import QuickGELU, TextTransformer


def golden_c4(golden, trained=None):
    """The detector of case 02, or of the step of case 03."""
    case = golden("case02_ovcoco_forward", FAMILY)
    config, training = case.meta["config"], (trained or case).meta["config"].get("train_cfg")
    # One temperature for all cases; the bias is a weight.
    temperature = golden("case01_classifier", FAMILY).meta["config"]["cls_temp"]
    options = {}
    if training is not None:
        options["training_proposals"] = proposals_of(training["rpn_proposal"])
        for key, part in (("anchor_sample", "rpn"), ("box_sample", "rcnn")):
            options[key] = samples_of(training[part])
        options["image_level"] = image_level_rules(trained.meta["config"]["ovd_cfg"])
    else:
        options["image_level"] = None
    rcnn = config["test_cfg"]["rcnn"]
    detector = C4Detector(
        classes_of(case.meta, config["embed_dim"]),
        C4Options(
            resnet=ResNetRules(
                tuple(config["blocks_per_stage"]), config["base_channels"], True, frozen=1
            ),
            images=BatchRules(tuple(config["mean_bgr"]), tuple(config["std"]), bgr=True),
            classifier=SigmoidRules(temperature, 0.0, bias_in_training_only=True),
            testing_proposals=proposals_of(config["test_cfg"]["rpn"]),
            detections=DetectionRules(
                rcnn["score_thr"], rcnn["nms"]["iou_threshold"], rcnn["max_per_img"]
            ),
            rpn_channels=config["rpn_feat_channels"],
            **options,
        ),
    )
    tensors = case.under("sd/") | ({} if trained is None else trained.under("sd/"))
    load(detector, c4_names(tensors))
    return detector.eval()


def check_boxes(case, prefix, found):
    close(case, f"{prefix}/scores", found.scores)
    close(case, f"{prefix}/labels", found.labels)
    close(case, f"{prefix}/boxes", found.boxes)


@torch.no_grad()
def test_golden_parts(golden):
    case = golden("case02_ovcoco_forward", FAMILY)
    detector = golden_c4(golden)
    images = images_of(case, "", detector.options.images)
    torch.testing.assert_close(images, case.tensor("in/batch"), atol=1e-4, rtol=0)
    feature_map = detector.backbone(images)[-1]
    close(case, "out/feat", feature_map)

    scores = detector.rpn([feature_map])
    logits, deltas = (
        values.flatten(1).unflatten(1, (*feature_map.shape[2:], -1)).permute(0, 3, 1, 2)
        for values in (scores.logits, scores.deltas)
    )
    close(case, "out/rpn_cls", logits)
    close(case, "out/rpn_reg", deltas)
    close(case, "out/anchors", scores.anchors)
    samples = case.meta["config"]["samples"]
    limits = torch.tensor([one["img_shape"] for one in samples]).float()
    check_proposals(case, detector.rpn.propose(scores, limits))

    rois = case.tensor("out/rois")
    boxes = [rois[rois[:, 0] == i, 1:] for i in range(len(samples))]
    windows = align_map(feature_map, rois, WINDOW, STRIDE)
    rows, channels = case.arrays["out/roi_align"].shape[:2]
    step = windows.shape[1] // channels
    close(case, "out/roi_align", windows[:rows, ::step])
    features = detector.box_features(feature_map, boxes)
    close(case, "out/shared_pooled", features)
    close(case, "out/logits", detector.box_head.classifier(features, detector.classes.embeddings))
    close(case, "out/bbox_pred", detector.box_head.deltas(features))


@pytest.mark.device
def test_golden_detections(golden):
    case = golden("case02_ovcoco_forward", FAMILY)
    detector = golden_c4(golden).to(DEVICE)
    images = images_of(case, "", detector.options.images).to(DEVICE)
    frames = frames_of_samples(case.meta["config"]["samples"], images.shape[-2:])
    for i, found in enumerate(detector(images, frames)):
        check_boxes(case, f"out/det{i}", found)
        close(case, f"out/det{i}/boxes_network_frame", frames[i].to_network(found.boxes))


# Training


def anchors_in_the_padding(limits, count):
    """Mark the anchors of cells beyond the size of an image, rounded up to 32: bool (B, A)."""
    own = (limits / 32).ceil() * 32
    rows, columns = (own.amax(0) / STRIDE).int().tolist()
    y, x = (torch.arange(number) * STRIDE for number in (rows, columns))
    outside = [(y[:, None] >= height) | (x >= width) for height, width in own]
    return torch.stack(outside).flatten(1).repeat_interleave(count // (rows * columns), 1)


def priorities_of(case, limits, counts):
    """The anchors and boxes that the original sampled have high priorities.

    Anchors in the padding have higher ones: the sample differs if they count.
    """
    sampled = case.tensor("out/rpn/label_weights") > 0
    padding = anchors_in_the_padding(limits, sampled.shape[1])
    assert not (padding & sampled).any()
    anchors = 0.9 * sampled + 0.95 * padding
    boxes = [priority_of(case, "out/rcnn", i, count) for i, count in enumerate(counts)]
    return Priorities(anchors, boxes)


def text_tower(case, context):
    """The text tower of the original, in open_clip."""
    sizes = case.meta["config"]["text"]
    tower = TextTransformer(
        context_length=sizes["context_length"],
        vocab_size=sizes["vocab_size"],
        width=sizes["transformer_width"],
        heads=sizes["transformer_heads"],
        layers=sizes["transformer_layers"],
        output_dim=sizes["embed_dim"],
        act_layer=QuickGELU,
    )
    tower.load_state_dict(context.under("sd/roi_head.clip.text_encoder."))
    return tower.eval()


def golden_step(case, detector):
    """All losses of the step of case 03."""
    rules, samples = detector.options.images, case.meta["data"]["samples"]["det"]
    truths = [
        Annotations(torch.tensor(one["boxes"]), torch.tensor(one["labels"])) for one in samples
    ]
    counts = [
        len(one["boxes"]) + len(case.arrays[f"out/proposals{i}"]) for i, one in enumerate(samples)
    ]
    limits = sizes_of(samples)
    priorities = priorities_of(case, limits, counts)
    losses = detector.losses(images_of(case, "det/", rules), limits, truths, priorities)

    drawn = [groups for kind, groups in case.meta["data"]["draws"] if kind == "group"]
    images = len(case.meta["data"]["samples"]["mos"])
    of_mosaics = (drawn[:images], drawn[images:])
    for number, (branch, name, groups) in enumerate(
        [("cap", "caption_batch", None), ("mos", "mosaic_batch", of_mosaics)]
    ):
        features = case.tensor(f"out/ovd/caption_features{number}")
        samples = case.meta["data"]["samples"][branch]
        batch = captioned(samples, detector.classes.num_classes, features, groups)
        images = images_of(case, f"{branch}/", rules)
        found = detector.image_losses(images, sizes_of(samples), batch)
        losses |= {f"{key}_{name}": value for key, value in found.items()}
    return losses


def check_anchors(case, scores, annotated, matches, sampled):
    """Compare which anchors train, and their targets."""
    positive = sampled & (matches >= 0)
    assert torch.equal(positive, case.tensor("out/rpn/labels") == 0)
    close(case, "out/rpn/label_weights", sampled.float())
    close(case, "out/rpn/bbox_weights", positive[..., None].expand(-1, -1, 4).float())
    for i, boxes in enumerate(annotated):
        here = positive[i]
        targets = box_deltas(scores.anchors[here], boxes[matches[i, here]])
        expected = case.tensor("out/rpn/bbox_targets")[i, here]
        tolerance = case.meta["keys"]["out/rpn/bbox_targets"]["tolerance"]
        torch.testing.assert_close(targets, expected, atol=tolerance, rtol=0)


def check_regions(case, found, tags, captions):
    """Compare the regions of images without boxes, batch by batch, and their embeddings."""
    for kind, batches in (("detic_tags", tags), ("detic_caption", captions)):
        boxes = [box for regions in batches for box in regions.boxes]
        for i, box in enumerate(boxes):
            close(case, f"out/{kind}/image{i}/boxes", box)
        assert f"out/{kind}/image{len(boxes)}/boxes" not in case.arrays
    for i, embedded in enumerate(found):
        close(case, f"out/ovd/region_embeddings{i}", embedded)


def test_golden_step(golden, monkeypatch):
    case = golden("case03_ovcoco_train", FAMILY)
    detector = golden_c4(golden, case).train()
    fill_queue(detector.image_level.captions.queue, case.tensor("in/queue"))
    anchors = []
    monkeypatch.setattr(
        rpn,
        "proposal_losses",
        lambda *args, **options: anchors.append(args) or proposal_losses(*args, **options),
    )
    proposals = record(monkeypatch, detector.rpn, "propose")
    sampled = record(monkeypatch, c4, "sample_batch")
    logits = record(monkeypatch, detector.box_head.classifier, "logits")
    deltas = record(monkeypatch, detector.box_head.deltas, "forward")
    tags = record(monkeypatch, detector.image_level, "tag_regions")
    captions = record(monkeypatch, detector.image_level, "caption_regions")
    embedded = record(monkeypatch, detector, "embed_regions")
    losses = golden_step(case, detector)

    check_anchors(case, *anchors[0])
    check_proposals(case, proposals[0])
    check_sampled(case, "out/rcnn", sampled[0])
    close(case, "out/rcnn/logits", logits[0])
    close(case, "out/rcnn/bbox_pred", deltas[0])
    check_regions(case, embedded, tags, captions)
    for name, value in losses.items():
        close(case, f"out/loss/{name}", value.reshape(case.arrays[f"out/loss/{name}"].shape))
    total = sum(value for name, value in losses.items() if name != "acc")
    close(case, "out/total", total)
    slots = case.meta["config"]["ovd_cfg"]["detic_caption"]["queue_cfg"]["id_length"]
    check_queue(case, "out/queue_after", detector.image_level.captions.queue, slots)

    total.backward()
    check_gradients(case, detector, own_name)
    trained = {name for name, value in detector.named_parameters() if value.grad is not None}
    assert trained == {own_name(name) for name in case.meta["data"]["grad_names"]}


def own_name(name):
    return next(iter(c4_names({name: torch.zeros(1)})))


@torch.no_grad()
def test_golden_text_features(golden):
    case = golden("case09_image_losses", FAMILY)
    tower = text_tower(case, golden("case03_ovcoco_train", FAMILY))
    tokens = case.tensor("in/tokens")
    assert torch.equal(tokenize(case.meta["data"]["texts"])[:, : tokens.shape[1]], tokens)
    # Padding after the end token changes nothing, because tokens only read what is before them.
    context = case.meta["config"]["text"]["context_length"]
    found = tower(F.pad(tokens, (0, context - tokens.shape[1])))
    close(case, "out/text_features_raw", found)
    close(case, "out/text_features", F.normalize(found, dim=-1))


def test_golden_tokens_of_long_texts(golden):
    case = golden("case09_image_losses", FAMILY)
    # The sidecar says: tokenize_dynamic of "TEXT" x NUMBER: ...
    about = case.meta["keys"]["in/tokens_truncated"]["description"]
    text, times = re.search(r'"(.*)" x (\d+)', about).groups()
    assert torch.equal(tokenize(text * int(times)), case.tensor("in/tokens_truncated"))


@torch.no_grad()
def test_golden_deltas_of_the_box_head(golden):
    case = golden("case01_classifier", FAMILY)
    layers = case.under("sd/coco.fc_reg.")
    rules = ResNetRules((1, 1, 1, 1))
    rules = replace(rules, width=layers["0.weight"].shape[1] // (2**3 * EXPANSION))
    head = C4BoxHead(rules, case.meta["config"]["embed_dim"], SigmoidRules())
    head.deltas.load_state_dict(layers)
    close(case, "out/coco/bbox_pred", head.deltas(case.tensor("in/roi").mean((2, 3))))


# Without golden data


def tiny_c4(**options):
    torch.manual_seed(0)
    classes = ClassSet(["a", "b"], F.normalize(torch.randn(2, 8), dim=1), [0])
    resnet = ResNetRules((1, 1, 1, 1), 4, frozen=1)
    images = BatchRules((100.0,) * 3, (50.0,) * 3, short=32, long=64)
    return C4Detector(classes, C4Options(resnet=resnet, images=images, **options))


def test_pictures_of_any_sizes():
    detector = tiny_c4(detections=DetectionRules(0.0, 0.5, 5))
    pictures = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((20, 50), (70, 9))
    ]
    for picture, found in zip(pictures, detector.detect(pictures), strict=True):
        assert 0 < len(found.boxes) <= 5
        assert (found.boxes[:, 2] <= picture.shape[2] + 1e-3).all()
    with pytest.raises(ValueError, match="at least one picture"):
        detector.detect([])


def test_stem_first_stage_and_norms_do_not_train():
    trained = [name for name, value in tiny_c4().named_parameters() if value.requires_grad]
    frozen = ("backbone.conv1", "backbone.layer1")
    assert not [name for name in trained if "bn" in name or name.startswith(frozen)]


def test_boxes_only_detectors_refuse_captions():
    detector = tiny_c4(image_level=None)
    with pytest.raises(ValueError, match="trains on boxes only"):
        detector.image_losses(torch.zeros(1, 3, 32, 32), torch.full((1, 2), 32.0), [])

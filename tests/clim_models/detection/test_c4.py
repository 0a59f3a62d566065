"""The C4 detector of Detic + CLIM, against the golden cases 02 and 03."""

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import (
    Annotations,
    ClassSet,
    DetectionRules,
    Priorities,
    SigmoidRules,
)
from clim_models.detection.batches import BatchRules
from clim_models.detection.boxes.matching import SampleRules
from clim_models.detection.c4 import C4Detector, C4Options
from clim_models.detection.detic_names import c4_names
from clim_models.detection.features.resnet import ResNetRules
from golden_detectors import close
from golden_detic import (
    FAMILY,
    captioned,
    check_gradients,
    check_queue,
    classes_of,
    fill_queue,
    frames_of_samples,
    image_level_rules,
    images_of,
    load,
    proposals_of,
    sizes_of,
)
from open_clip.transformer import QuickGELU, TextTransformer


def golden_c4(case, trained=None):
    """The detector of case 02, or of the step of case 03."""
    config, training = case.meta["config"], (trained or case).meta["config"].get("train_cfg")
    options = {}
    if training is not None:
        options["training_proposals"] = proposals_of(training["rpn_proposal"])
        for key, part in (("anchor_sample", "rpn"), ("box_sample", "rcnn")):
            rules = training[part]["sampler"]
            options[key] = SampleRules(rules["num"], rules["pos_fraction"])
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
            classifier=SigmoidRules(25.0, -20.0, bias_in_training_only=True),
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
    detector = golden_c4(case)
    images = images_of(case, "", detector.options.images)
    torch.testing.assert_close(images, case.tensor("in/batch"), atol=1e-4, rtol=0)
    feature_map = detector.backbone(images)[-1]
    close(case, "out/feat", feature_map)

    scores = detector.rpn([feature_map])
    logits = case.tensor("out/rpn_cls").permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(scores.logits, logits, atol=2e-4, rtol=0)
    close(case, "out/anchors", scores.anchors)
    samples = case.meta["config"]["samples"]
    limits = torch.tensor([one["img_shape"] for one in samples]).float()
    for i, found in enumerate(detector.rpn.propose(scores, limits)):
        expected = case.tensor(f"out/proposals{i}")
        close(case, f"out/proposals{i}", found.boxes[: len(expected)])
        close(case, f"out/proposal_scores{i}", found.scores[: len(expected)])

    rois = case.tensor("out/rois")
    boxes = [rois[rois[:, 0] == i, 1:] for i in range(len(samples))]
    features = detector.box_features(feature_map, boxes)
    close(case, "out/shared_pooled", features)
    close(case, "out/logits", detector.box_head.classifier(features, detector.classes.embeddings))
    close(case, "out/bbox_pred", detector.box_head.deltas(features))


def test_golden_detections(golden):
    case = golden("case02_ovcoco_forward", FAMILY)
    detector = golden_c4(case)
    images = images_of(case, "", detector.options.images)
    frames = frames_of_samples(case.meta["config"]["samples"], images.shape[-2:])
    for i, found in enumerate(detector(images, frames)):
        check_boxes(case, f"out/det{i}", found)
        close(case, f"out/det{i}/boxes_network_frame", frames[i].to_network(found.boxes))


# Training


def priorities_of(case, detector, limits, counts):
    """What the original drew, as priorities."""
    draws = [numbers for kind, numbers in case.meta["data"]["draws"] if kind == "choice"]
    stride = 16
    width, height = limits.amax(0).flip(0)
    grid = [int(-(-side // 32) * 32 // stride) for side in (height, width)]
    anchors = detector.rpn([torch.zeros(1, detector.backbone.channels[-1], *grid)]).anchors
    usable = detector.usable_anchors(anchors, limits)
    first = torch.zeros(usable.shape)
    for row, able, draw in zip(first, usable, draws, strict=False):
        row[able.nonzero()[:, 0][draw]] = 0.9
    boxes = []
    for count, draw in zip(counts, draws[len(limits) :], strict=True):
        row = torch.zeros(count)
        row[draw] = 0.9
        boxes.append(row)
    return Priorities(first, boxes)


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
    priorities = priorities_of(case, detector, limits, counts)
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


def test_golden_step(golden):
    case = golden("case03_ovcoco_train", FAMILY)
    detector = golden_c4(golden("case02_ovcoco_forward", FAMILY), case).train()
    fill_queue(detector.image_level.captions.queue, case.tensor("in/queue"))
    losses = golden_step(case, detector)
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
    # Padding after the end token changes nothing, because tokens only read what is before them.
    context = case.meta["config"]["text"]["context_length"]
    found = tower(F.pad(tokens, (0, context - tokens.shape[1])))
    close(case, "out/text_features_raw", found)
    close(case, "out/text_features", F.normalize(found, dim=-1))


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

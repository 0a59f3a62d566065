"""The cascade detector of Detic + CLIM, against the golden cases 04, 05 and 06."""

import pytest
import torch
import torch.nn.functional as F
from clim_models.detection import (
    Annotations,
    ClassSet,
    DetectionRules,
    Priorities,
    SigmoidRules,
    cascade,
)
from clim_models.detection.batches import BatchRules
from clim_models.detection.boxes.roi import align_pyramid, as_rois, level_of_boxes
from clim_models.detection.cascade import FINEST, MAPS, CascadeDetector, combined_scores
from clim_models.detection.cascade_options import CascadeOptions
from clim_models.detection.detic_names import cascade_names
from clim_models.detection.features.resnet import ResNetRules
from clim_models.detection.heads import mask_head
from clim_models.detection.heads.cascade_losses import CascadeLossRules
from clim_models.detection.heads.centres import CentreNetwork, CentreRules, CentreScores
from clim_models.detection.heads.heatmap import (
    HeatmapRules,
    distance_loss,
    heatmap_targets,
    lay_grid,
    levels_of,
)
from clim_models.detection.image_level.captions import Captions
from clim_models.detection.image_level.step import CaptionedImage
from device import DEVICE
from golden_detectors import close, record, samples_of, unpack
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


def heatmap_rules(config):
    loss = config["loss_cls"]
    return HeatmapRules(
        tuple(config["strides"]),
        tuple(map(tuple, config["regress_ranges"])),
        config["hm_min_overlap"],
        config["hm_min_radius"],
        loss["alpha"],
        loss["gamma"],
        loss["beta"],
        loss["pos_weight"],
        loss["ignore_high_fp"],
        empty_images=False,
    )


def golden_cascade(golden, trained=None):
    """The detector of case 05; `trained` is the step of case 06."""
    case, centres = golden("case05_cascade", FAMILY), golden("case04_centernet", FAMILY)
    config, heads = case.meta["config"], centres.meta["config"]
    training, options = heads["train_proposals"], {"image_level": None}
    if trained is not None:
        steps = trained.meta["config"]
        training = steps["train_cfg"]["rpn_proposal"]
        options = {
            "image_level": image_level_rules(steps["ovd_cfg"]),
            "box_sample": samples_of(steps["train_cfg"]["rcnn"][0]),
            "losses": CascadeLossRules(steps["fed_loss_num_cat"], count_background=True),
            "groups_compete": True,
        }
    testing = config["test_cfg"]["rpn"] if trained else heads["test_proposals"]
    rcnn = config["test_cfg"]["rcnn"]
    classes = classes_of(case.meta, config["embed_dim"])
    power = golden("case06_fedloss", FAMILY).meta["config"]["fed_loss_freq_weight"]
    counts = case.tensor("sd/roi_head.bbox_head.0.freq_weight") ** (1 / power)
    temperature = golden("case01_classifier", FAMILY).meta["config"]["norm_temperature"]
    rules = CascadeOptions(
        resnet=ResNetRules(tuple(config["blocks_per_stage"]), config["base_channels"]),
        images=BatchRules(tuple(config["mean_rgb"]), tuple(config["std"])),
        centres=CentreRules(
            heatmap_rules(heads), proposals_of(training), proposals_of(testing), config["gn_groups"]
        ),
        channels=config["fpn"],
        width=config["fc_out_channels"],
        classifier=SigmoidRules(temperature),
        mask_channels=config["mask_channels"],
        detections=DetectionRules(
            rcnn["score_thr"], rcnn["nms"]["iou_threshold"], rcnn["max_per_img"]
        ),
        **options,
    )
    detector = CascadeDetector(classes, counts, rules)
    load(detector, cascade_names(case.under("sd/")))
    return detector.eval()


# Centres


def level_first(values, counts):
    """(B, P, ...) in the order of the original: level, image, position."""
    return torch.cat([level.flatten(0, 1) for level in values.split(list(counts), 1)])


def test_golden_targets_of_centres(golden):
    case = golden("case04_centernet", FAMILY)
    config = case.meta["config"]
    rules = heatmap_rules(config)
    height, width = config["virtual_image"]
    sizes = [(-(-height // s), -(-width // s)) for s in rules.strides]
    grid = lay_grid(sizes, rules.strides, torch.device("cpu"))
    close(case, "out/points", grid.centres)
    count = len([key for key in case.arrays if key.startswith("in/boxes")])
    boxes = [case.tensor(f"in/boxes{i}") for i in range(count)]
    close(case, "out/level_mask", levels_of(boxes[0], rules.ranges))

    targets = [heatmap_targets(grid, box, rules) for box in boxes]
    counts = [rows * columns for rows, columns in sizes]
    heat = level_first(torch.stack([one.heat for one in targets]), counts)
    close(case, "out/heatmap", heat)
    has_box = level_first(torch.stack([one.has_box for one in targets]), counts)
    close(case, "out/reg_index", has_box.nonzero()[:, 0])
    distances = level_first(torch.stack([one.distances for one in targets]), counts)
    close(case, "out/reg_targets", distances[has_box])
    positive = level_first(torch.stack([one.positive for one in targets]), counts)
    found = torch.arange(len(positive)).repeat_interleave(positive)
    assert torch.equal(found, case.tensor("out/pos_inds").sort().values)


def test_boxes_at_the_end_of_a_range_belong_to_both_levels():
    # Half the diagonal is 80 pixels.
    (levels,) = levels_of(torch.tensor([[0.0, 0, 96, 128]]), HeatmapRules().ranges)
    assert levels.tolist() == [True, True, False, False, False]


def test_targets_end_where_they_are_faint():
    rules = HeatmapRules((8.0,), ((0.0, 1e8),))
    grid = lay_grid([(40, 40)], rules.strides, torch.device("cpu"))
    heat = heatmap_targets(grid, torch.tensor([[150.0, 150, 170, 170]]), rules).heat
    assert heat.max() == 1
    # Two cells away it would be exp(-16).
    assert heat[heat > 0].min() > 1e-4


def test_golden_giou(golden):
    case = golden("case04_centernet", FAMILY)
    own = case.tensor("in/pred").requires_grad_()
    found = distance_loss(own, case.tensor("in/target"))
    close(case, "out/giou", found.detach())
    found.sum().backward()
    close(case, "out/giou_grad", own.grad)


def test_golden_losses_of_centres(golden):
    case = golden("case04_centernet", FAMILY)
    detector = golden_cascade(golden)
    with torch.no_grad():
        levels = detector.levels_of(images_of(case, "", detector.options.images))
    scores = detector.centres(levels)
    sizes = [level.shape[-2:] for level in levels]
    parts = scores.logits.split(scores.counts, 1), scores.distances.split(scores.counts, 1)
    for level, (rows, columns) in enumerate(sizes):
        if f"out/cls{level}" in case.arrays:
            close(case, f"out/cls{level}", parts[0][level].reshape(-1, 1, rows, columns))
        if f"out/reg{level}" in case.arrays:
            found = parts[1][level].transpose(1, 2).reshape(-1, 4, rows, columns)
            close(case, f"out/reg{level}", found)

    boxes, nothing = [case.tensor(f"in/gt{i}") for i in case.numbers("in/gt")], torch.zeros(0, 4)
    kinds = {
        "loss": boxes,
        "loss_one_empty": [*boxes[:-1], nothing],
        "loss_all_empty": [nothing] * len(boxes),
    }
    for kind, annotated in kinds.items():
        losses = detector.centres.losses(scores, annotated)
        for name, value in losses.items():
            close(case, f"out/{kind}/{name.removeprefix('rpn_')}", value)
        if kind == "loss":
            sum(losses.values()).backward(retain_graph=True)
            centres = detector.centres
            close(case, "out/grad/conv_cls.weight", centres.heat.weight.grad)
            close(case, "out/grad/conv_reg.weight", centres.distances.weight.grad)
            close(case, "out/grad/reg_convs.0.conv.weight", centres.convs[0].weight.grad)
            close(case, "out/grad/scales", centres.scales.grad)


@pytest.mark.parametrize("mode", ["train", "test"])
def test_golden_proposals_of_centres(golden, mode):
    case = golden("case04_centernet", FAMILY)
    detector = golden_cascade(golden)
    with torch.no_grad():
        levels = detector.levels_of(images_of(case, "", detector.options.images))
        detector.centres.train(mode == "train")
        found = detector.centres.propose(detector.centres(levels))
    check_proposals(case, found, f"_{mode}")


def test_distances_are_never_negative():
    network = CentreNetwork(4, CentreRules(groups=1))
    assert network.distances.bias is not None
    torch.nn.init.constant_(network.distances.bias, -1.0)
    scores = network([torch.randn(1, 4, 2**k, 2**k) for k in range(4, -1, -1)])
    assert not scores.distances.any()


def test_proposals_have_a_least_score_and_a_least_side():
    grid = lay_grid([(1, 2)], [8.0], torch.device("cpu"))
    logits = torch.logit(torch.tensor([[0.5e-4, 0.25]]))
    scores = CentreScores(logits, torch.zeros(1, 2, 4), grid, (2,))
    (found,) = CentreNetwork(2, CentreRules(groups=1)).eval().propose(scores)
    torch.testing.assert_close(found.scores, torch.tensor([0.5]))
    torch.testing.assert_close(found.boxes, torch.tensor([[12.0, 4, 12.01, 4.01]]))


# Cascade


@torch.no_grad()
def test_golden_stages(golden):
    case = golden("case05_cascade", FAMILY)
    detector = golden_cascade(golden)
    images = images_of(golden("case04_centernet", FAMILY), "", detector.options.images)
    levels = detector.levels_of(images)
    for level, found in enumerate(levels):
        step = found.shape[1] // case.arrays[f"out/fpn{level}"].shape[1]
        close(case, f"out/fpn{level}", found[:, ::step])

    proposals = detector.centres.propose(detector.centres(levels))
    check_proposals(case, proposals)
    boxes = [one.boxes for one in proposals]
    close(case, "out/roi_levels", level_of_boxes(torch.cat(boxes), MAPS, FINEST))
    check_windows(case, detector, levels, as_rois(boxes))
    limits = sizes_of(case.meta["config"]["samples"])
    for stage in range(3):
        features = detector.box_features(levels, boxes, stage)
        close(case, f"out/stage{stage}/rois", as_rois(boxes))
        head = detector.head(stage)
        logits = head.classifier(features, detector.classes.embeddings)
        close(case, f"out/stage{stage}/logits", logits)
        close(case, f"out/stage{stage}/bbox_pred", head.deltas(features))
        boxes = detector.moved(boxes, features, limits, stage)
    _, mean = detector.refine_and_score(levels, [one.boxes for one in proposals], limits)
    close(case, "out/scores_average", torch.cat(mean))
    pairs = zip(mean, proposals, strict=True)
    final = [combined_scores(score, proposal.scores) for score, proposal in pairs]
    close(case, "out/scores_final", torch.cat(final))


def check_windows(case, detector, levels, rois):
    """Compare what the box head and the mask head read, and the masks of some proposals."""
    strides = detector.options.centres.heatmap.strides[:MAPS]
    expected = case.arrays["out/roi_align"]
    windows = align_pyramid(levels[:MAPS], rois, expected.shape[-1], strides, finest=FINEST)
    step = windows.shape[1] // expected.shape[1]
    close(case, "out/roi_align", windows[: len(expected), ::step])

    rois = case.tensor("out/mask_rois")
    windows = align_pyramid(levels[:MAPS], rois, mask_head.WINDOW, strides, finest=FINEST)
    close(case, "out/mask_logits", detector.mask_head(windows)[:, None])


@pytest.mark.device
def test_golden_detections_and_masks(golden):
    case = golden("case05_cascade", FAMILY)
    detector = golden_cascade(golden).to(DEVICE)
    images = images_of(golden("case04_centernet", FAMILY), "", detector.options.images)
    images = images.to(DEVICE)
    frames = frames_of_samples(case.meta["config"]["samples"], images.shape[-2:])
    for i, found in enumerate(detector(images, frames)):
        for part in ("boxes", "scores", "labels"):
            close(case, f"out/det{i}/{part}", getattr(found, part))
        masks = case.tensor(f"out/det{i}/masks").bool().cpu()
        ours = found.masks.cpu()
        assert (ours[: len(masks)] != masks).float().mean() < 1e-3
        area = ours.flatten(1).sum(1).float()
        expected = case.tensor(f"out/det{i}/mask_area").cpu()
        torch.testing.assert_close(area, expected, atol=2, rtol=0.01)


# Training


def class_keys(case, classes):
    """Keys of each stage: the smallest are those of the classes that the original drew.

    It drew none in a stage whose boxes have enough classes.
    """
    draws = iter([drawn for kind, drawn in case.meta["data"]["draws"] if kind == "multinomial"])
    keys = [torch.ones(classes) for _ in range(3)]
    for stage, key in enumerate(keys):
        present = case.tensor(f"out/s{stage}/labels").unique()
        if len(present) < case.meta["config"]["fed_loss_num_cat"]:
            key[next(draws)] = 0
    assert next(draws, None) is None
    return keys


def golden_step(case, detector):
    """All losses of the step of case 06."""
    data, rules = case.meta["data"], detector.options.images
    classes = detector.classes.num_classes
    samples = data["samples"]["det"]
    images = images_of(case, "det/", rules)
    truths, priorities = [], []
    for i, one in enumerate(samples):
        packed = case.tensor(f"in/det/masks{i}")
        height, width = packed.shape[1], one["img_shape"][1]
        masks = unpack(packed, width)
        masks = F.pad(masks, (0, images.shape[3] - width, 0, images.shape[2] - height))
        boxes, labels = torch.tensor(one["boxes"]), torch.tensor(one["labels"])
        truths.append(Annotations(boxes, labels, masks))
        count = len(boxes) + len(case.arrays[f"out/proposals{i}"])
        priorities.append(priority_of(case, "out/s0", i, count))
    given = Priorities(boxes=priorities, classes=class_keys(case, classes))
    losses = detector.losses(images, sizes_of(samples), truths, given)

    groups = [numbers for kind, numbers in data["draws"] if kind == "group"]
    for branch, name, first in (("cap", "cap_batch", 0), ("mos", "clim_batch", 3)):
        samples = data["samples"][branch]
        count = len(samples)
        batches = []
        for stage in range(3):
            features = case.tensor(f"out/caption_features{first + stage}")
            of_stage = None
            if branch == "mos":
                of_tags = groups[count * stage : count * (stage + 1)]
                of_captions = groups[count * (3 + stage) : count * (4 + stage)]
                of_stage = (of_tags, of_captions)
            batches.append(captioned(samples, classes, features, of_stage))
        images = images_of(case, f"{branch}/", rules)
        found = detector.image_losses(images, sizes_of(samples), batches)
        losses |= {f"{name}.{key}": value for key, value in found.items()}
    return losses


def own_name(name):
    """Our name of a parameter; None for the scales, which are one tensor here."""
    if name.startswith("rpn_head.scales."):
        return None
    return next(iter(cascade_names({name: torch.zeros(1)})))


def check_regions(case, detector, regions, features, embedded):
    """Compare regions and embeddings of images without boxes, in the order of the original.

    For each batch: the tags of the three stages, then their captions.
    """
    for i, (one, x, embedding) in enumerate(zip(regions, features, embedded, strict=True)):
        close(case, f"out/ovd{i}/rois", as_rois(one.boxes))
        close(case, f"out/ovd{i}/region_embeddings", embedding)
        close(case, f"out/ovd{i}/bbox_pred", detector.head(i % 3).deltas(x))
    assert f"out/ovd{len(regions)}/rois" not in case.arrays


def test_golden_step(golden, monkeypatch):
    case = golden("case06_lvis_train", FAMILY)
    detector = golden_cascade(golden, case).train()
    fill_queue(detector.image_level.captions.queue, case.tensor("in/queue"))
    proposals = record(monkeypatch, detector.centres, "propose")
    sampled = record(monkeypatch, cascade, "sample_batch")
    masks = record(monkeypatch, mask_head, "mask_targets")
    tags = record(monkeypatch, detector.image_level, "tag_regions")
    captions = record(monkeypatch, detector.image_level, "caption_regions")
    features = record(monkeypatch, detector, "box_features")
    embedded = []
    for stage in range(3):
        project = detector.head(stage).classifier.project
        project.register_forward_hook(lambda _module, _inputs, found: embedded.append(found))
    losses = golden_step(case, detector)

    check_proposals(case, proposals[0])
    for stage, of_stage in enumerate(sampled):
        check_sampled(case, f"out/s{stage}", of_stage)
    side = case.meta["config"]["train_cfg"]["rcnn"][0]["mask_size"]
    expected = unpack(case.tensor("out/mask_targets_packed"), side)
    assert torch.equal(torch.cat(masks), expected)
    regions = [*tags[:3], *captions[:3], *tags[3:], *captions[3:]]
    # The first three are those of the images with boxes.
    check_regions(case, detector, regions, features[3:], embedded[3:])
    for name, value in losses.items():
        close(case, f"out/loss/{name}", value.reshape(case.arrays[f"out/loss/{name}"].shape))
    expected = {key for key in case.arrays if key.startswith("out/loss/")}
    assert {f"out/loss/{name}" for name in losses} == expected
    total = sum(value for name, value in losses.items() if "acc" not in name)
    close(case, "out/total", total.reshape(1))
    slots = case.meta["config"]["ovd_cfg"]["detic_caption"]["queue_cfg"]["id_length"]
    check_queue(case, "out/queue_after", detector.image_level.captions.queue, slots)
    total.backward()
    check_gradients(case, detector, own_name)
    names, norms = case.meta["data"]["grad_names"], case.tensor("out/grad_norm")
    of_scales = [norms[i] for i, name in enumerate(names) if name.startswith("rpn_head.scales.")]
    scales = detector.centres.scales.grad.abs()
    torch.testing.assert_close(scales, torch.stack(of_scales), atol=1e-7, rtol=1e-3)


# Without golden data


def tiny_cascade(**options):
    classes = ClassSet(["a", "b"], F.normalize(torch.randn(2, 8), dim=1))
    rules = CascadeOptions(
        resnet=ResNetRules((1, 1, 1, 1), 4),
        images=BatchRules((100.0,) * 3, (50.0,) * 3, short=32, long=64),
        centres=CentreRules(groups=2),
        channels=8,
        width=8,
        mask_channels=4,
        classifier=SigmoidRules(50.0),
        **options,
    )
    return CascadeDetector(classes, torch.tensor([3, 4]), rules)


def test_images_without_boxes_are_negatives_everywhere_by_default():
    detector = tiny_cascade(image_level=None).train()
    empty = Annotations(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = detector.losses(torch.randn(1, 3, 64, 64), torch.full((1, 2), 64.0), [empty])
    assert losses["rpn_loss_cls_neg"] > 0
    assert losses["loss_mask"] == 0
    sum(value for name, value in losses.items() if "acc" not in name).backward()


def test_boxes_of_later_stages_are_not_ranked_for_their_tiles(monkeypatch):
    detector = tiny_cascade()
    captions = Captions(F.normalize(torch.randn(1, 8)), torch.tensor([1]))
    tile, tags = torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([[True, False]])
    image = CaptionedImage(tile, torch.tensor([1]), tags, captions)
    regions, ranked = detector.image_level.tag_regions, []
    monkeypatch.setattr(
        detector.image_level,
        "tag_regions",
        lambda batch, boxes, scores: (
            ranked.append(scores is not None) or regions(batch, boxes, scores)
        ),
    )
    detector.image_losses(torch.randn(1, 3, 64, 64), torch.full((1, 2), 64.0), [[image]] * 3)
    assert ranked == [True, False, False]


def test_pictures_of_any_sizes():
    detector = tiny_cascade(detections=DetectionRules(0.0, 0.5, 3))
    picture = torch.randint(0, 256, (3, 20, 50), dtype=torch.uint8)
    (found,) = detector.detect([picture])
    assert found.masks.shape == (len(found.boxes), 20, 50)
    with pytest.raises(ValueError, match="3 stages"):
        detector.image_losses(torch.zeros(1, 3, 32, 32), torch.full((1, 2), 32.0), [])

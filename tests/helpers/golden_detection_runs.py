"""Comparisons of whole detectors with the golden cases.

Tests import them as `from golden_detection_runs import check_losses` (pytest puts this folder on
the path).
"""

from dataclasses import replace

import pytest
import torch
from clim_models.detection import (
    Detections,
    detector as detector_module,
    frozen_clip_names,
    fvit_names,
)
from clim_models.detection.boxes.matching import SampleRules
from clim_models.detection.boxes.roi import as_rois
from golden_detectors import close, record, unpack

# Masks of the full test differ in border pixels between machines.
MASK_IOU = 0.98
# A rounding can flip a ReLU or a RoIAlign sample.
NORM_RELATIVE, NORM_OF_LARGEST = 5e-3, 1e-4


def check_detections(case, prefix: str, image: int, found) -> None:
    """Compare boxes with the golden ones, each with the closest of its label.

    Detections whose scores differ by less than the tolerance may have swapped places.
    """
    keys = {part: f"{prefix}/{part}{image}" for part in ("boxes", "scores", "labels")}
    expected = {part: case.tensor(key).cpu() for part, key in keys.items()}
    assert len(found.scores) == len(expected["scores"])
    tolerances = {part: case.meta["keys"][keys[part]].get("tolerance") for part in keys}
    found = Detections(*(getattr(found, part).cpu() for part in ("boxes", "scores", "labels")))

    torch.testing.assert_close(found.scores, expected["scores"], atol=tolerances["scores"], rtol=0)
    order = order_of(found, expected)
    assert sorted(order.tolist()) == list(range(len(order)))
    assert torch.equal(found.labels[order], expected["labels"])
    for part, values in (("boxes", found.boxes), ("scores", found.scores)):
        torch.testing.assert_close(values[order], expected[part], atol=tolerances[part], rtol=0)


def order_of(found, expected) -> torch.Tensor:
    """For each golden box the closest one of its label that is still free."""
    distances = torch.cdist(expected["boxes"], found.boxes.cpu(), p=torch.inf)
    other = expected["labels"][:, None] != found.labels.cpu()
    distances = distances.masked_fill(other, torch.inf)
    order = []
    for row in distances:
        order.append(int(row.argmin()))
        distances[:, order[-1]] = torch.inf
    return torch.tensor(order, dtype=torch.int64)


def check_masks(case, prefix: str, image: int, found) -> None:
    """Compare masks of the first boxes by their overlap."""
    packed = case.tensor(f"{prefix}/masks{image}").cpu()
    everything = found.masks.cpu()
    masks = unpack(packed, everything.shape[-1])
    expected = {part: case.tensor(f"{prefix}/{part}{image}").cpu() for part in ("boxes", "labels")}
    ours = everything[order_of(found, expected)][: len(masks)]
    both = (ours & masks).flatten(1).sum(1)
    either = (ours | masks).flatten(1).sum(1).clamp(min=1)
    different = (ours ^ masks).flatten(1).float().mean(1)
    assert ((both / either > MASK_IOU) | (different <= 0.01)).all()


def check_losses(case, prefix: str, detector, images, frames, truths, kind: str = "") -> None:
    """Compare losses, gradients and buffers of a step in which every box trains."""
    detector.train()
    # More than there are: everything is sampled.
    everything = SampleRules(10**6, 0.5)
    detector.rpn.rules = replace(detector.rpn.rules, sample=everything)
    detector.rules = replace(detector.rules, sample=everything)

    limits = detector.limits_of(frames, images.device)
    with pytest.MonkeyPatch.context() as patch:
        sampled = record(patch, detector_module, "sample_batch")
        logits = record(patch, detector.box_head.classifier, "forward")
        losses = detector.losses(images, limits, truths)
    check_boxes(case, prefix, sampled[0], logits[0])
    for key, value in losses.items():
        about = case.meta["keys"][f"{prefix}/{key}"]
        close(case, f"{prefix}/{key}", value.reshape(about["shape"]))
    total = sum(value.sum() for name, value in losses.items() if name != "acc")
    close(case, f"{prefix}/total", total.reshape(case.meta["keys"][f"{prefix}/total"]["shape"]))

    total.backward()
    check_gradients(case, prefix, detector, kind)


def check_boxes(case, prefix: str, sampled, logits: torch.Tensor) -> None:
    """Compare the boxes that train, their labels and logits."""
    close(case, f"{prefix}/rois", as_rois([one.boxes for one in sampled]))
    if f"{prefix}/roi_labels" in case.arrays:
        close(case, f"{prefix}/roi_labels", torch.cat([one.labels for one in sampled]))
    name = "roi_logits" if f"{prefix}/roi_logits" in case.arrays else "logits"
    close(case, f"{prefix}/{name}", logits)


def check_gradients(case, prefix: str, detector, kind: str) -> None:
    rename = fvit_names if kind else frozen_clip_names
    suffix = f"_{kind}" if kind else ""
    names = case.meta[f"grad_names{suffix}"]
    missing = case.meta["no_gradient"]
    missing = missing[kind] if kind else missing
    parameters = dict(detector.named_parameters())
    norms = case.tensor(f"{prefix}/grad_norms")
    assert len(names) == len(norms)
    allowed = NORM_OF_LARGEST * norms.max().item()

    checked = set()
    for name, norm in zip(names, norms.tolist(), strict=True):
        assert name not in missing
        ours = our_name(name, rename)
        checked.add(ours)
        found = parameters[ours].grad.norm().item()
        assert abs(found - norm) <= NORM_RELATIVE * norm + allowed, name
    assert checked == {name for name, p in parameters.items() if p.grad is not None}

    for name, gradient in case.under(f"{prefix}/grad/").items():
        found = parameters[our_name(name, rename)].grad.reshape(gradient.shape)
        close(case, f"{prefix}/grad/{name}", found)
    buffers = dict(detector.named_buffers())
    for name in case.under(f"{prefix}/after/"):
        close(case, f"{prefix}/after/{name}", buffers[our_name(name, rename)])


def our_name(name: str, rename) -> str:
    (ours,) = rename({name: torch.zeros(1, 1)})
    return ours

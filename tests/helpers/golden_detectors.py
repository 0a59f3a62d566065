"""Detectors of the golden cases; every size comes from their sidecars.

Tests import them as `from golden_detectors import golden_detector` (pytest puts this folder on the
path).
"""

from dataclasses import replace

import torch
from clim_models import RegionModel
from clim_models.detection import (
    ClassSet,
    DetectionRules,
    EnsembleRules,
    FrozenClipOptions,
    FViTOptions,
    ImageFrame,
    ProposalRules,
    build_frozen_clip,
    build_fvit,
    load_detector,
)
from clim_models.detection.boxes.matching import SampleRules
from open_clip.model import CLIP, CustomTextCLIP
from tiny_towers import eva_config

FAMILY = "detection"


def golden_tower(meta: dict) -> RegionModel:
    """The RegionModel of a sidecar of a detector, with random weights."""
    tower = meta["config"]["sizes"]["tower"]
    if "eva_model_name" in tower["vision_cfg"]:
        model = RegionModel(CustomTextCLIP(**eva_config({"config": tower})))
    else:
        vision = {key: value for key, value in tower["vision_cfg"].items() if value is not None}
        sizes = {"embed_dim": tower["embed_dim"], "text_cfg": tower["text_cfg"]}
        # The original builds these towers with GELU.
        model = RegionModel(CLIP(**sizes, vision_cfg=vision, quick_gelu=False))
    return model.eval()


def golden_classes(meta: dict, embed_dim: int) -> ClassSet:
    """The class names and base classes of a detector, with embeddings still to be loaded."""
    sizes = meta["config"]["sizes"]
    others = {*sizes["novel_indices"], *sizes.get("neither_base_nor_novel_indices", ())}
    base = [label for label in range(len(sizes["classes"])) if label not in others]
    return ClassSet(sizes["classes"], torch.ones(len(sizes["classes"]), embed_dim), base)


def golden_options(meta: dict) -> FViTOptions | FrozenClipOptions:
    """Options of a detector, read from the configuration that the original was built from."""
    sizes, model = meta["config"]["sizes"], meta["config"]["model"]
    roi, rcnn = model["roi_head"], model["test_cfg"]["rcnn"]

    def proposals(rules: dict) -> ProposalRules:
        overlap = rules["nms"]["iou_threshold"]
        return ProposalRules(rules["nms_pre"], rules["max_per_img"], overlap)

    shared = {
        "image_size": max(sizes["img"]) if isinstance(sizes["img"], list) else sizes["img"],
        "ensemble": EnsembleRules(sizes["alpha"], sizes["beta"], sizes["Tv"]),
        "detections": DetectionRules(
            rcnn["score_thr"], rcnn["nms"]["iou_threshold"], rcnn["max_per_img"]
        ),
        "background_weight": sizes["bg"],
        "masks": "mask_head" in roi,
        "rpn_norm": "norm_cfg" in model["rpn_head"],
        "best_proposal": roi["train_cfg"]["assigner"]["match_low_quality"],
        "training_proposals": proposals(model["train_cfg"]["rpn_proposal"]),
        "testing_proposals": proposals(model["test_cfg"]["rpn"]),
        "channels": sizes["fpn"],
        "original": True,
    }
    if "out_indices" in sizes:
        shared["blocks"] = tuple(sizes["out_indices"])
    if model["type"] == "FViT":
        return FViTOptions(**shared)
    neck = "nas_fpn" if model["neck"]["type"] == "NASFPN" else "fpn"
    return FrozenClipOptions(**shared, neck=neck, width=sizes["fc"], stacks=sizes.get("stack", 1))


def samples_of(rules: dict) -> SampleRules:
    """How many boxes train, by the rules of a part of the original."""
    return SampleRules(rules["sampler"]["num"], rules["sampler"]["pos_fraction"])


def golden_detector(case, **changes):
    """The detector of a model case, weights loaded through the public loader."""
    tower = golden_tower(case.meta)
    options = replace(golden_options(case.meta), **changes)
    classes = golden_classes(case.meta, tower.embed_dim)
    if isinstance(options, FViTOptions):
        start = torch.ones(tower.embed_dim)
        detector = build_fvit(tower, classes, options, background=start)
    else:
        detector = build_frozen_clip(tower, classes, options)
    # The numbers of anchors and boxes that train are no options of the builders.
    rules = case.meta["config"]["model"]["train_cfg"]
    detector.rpn.rules = replace(detector.rpn.rules, sample=samples_of(rules["rpn"]))
    detector.rules = replace(detector.rules, sample=samples_of(rules["rcnn"]))
    detector.load_report = load_detector(detector, case.under("sd/"))
    return detector.eval()


def frames_of(contents, padded, originals=None) -> list[ImageFrame]:
    """Frames of images of which a sidecar gives the sizes as (height, width)."""
    originals = contents if originals is None else originals
    return [
        ImageFrame(tuple(original[:2]), tuple(content[:2]), tuple(padded))
        for original, content in zip(originals, contents, strict=True)
    ]


def close(case, key: str, found: torch.Tensor) -> None:
    """Compare with a golden array, within the tolerance that its sidecar gives."""
    about, expected, found = case.meta["keys"][key], case.tensor(key).cpu(), found.cpu()
    assert tuple(found.shape) == tuple(expected.shape), key
    if about.get("exact"):
        assert torch.equal(found.to(expected.dtype), expected), key
        return
    difference = (found.double() - expected.double()).abs().max().item() if found.numel() else 0
    assert difference <= about["tolerance"], f"{key}: {difference} > {about['tolerance']}"


def record(monkeypatch, place, name: str) -> list:
    """Collect what a function, or a method of an object, returns from now on."""
    original, found = getattr(place, name), []

    def recording(*args, **options):
        found.append(original(*args, **options))
        return found[-1]

    monkeypatch.setattr(place, name, recording)
    return found


def unpack(packed: torch.Tensor, width: int) -> torch.Tensor:
    """Masks whose bits are packed along x: (..., bytes) uint8 -> bool (..., width)."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = (packed[..., None] >> shifts) & 1
    return bits.flatten(-2)[..., :width].bool()

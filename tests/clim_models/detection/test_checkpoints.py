"""Released detectors under our names: the golden list of their entries, and what is refused."""

import json

import pytest
import torch
from clim_models.detection import (
    ClassSet,
    EnsembleRules,
    load_detector,
    save_detector,
)
from clim_models.detection.checkpoints import (
    frozen_clip_names,
    fvit_names,
    recognise_detector,
)
from golden_detectors import FAMILY, golden_detector

MODELS = [
    "model_fvit_coco",
    "model_fvit_lvis",
    "model_ovdet_vit_fpn",
    "model_ovdet_vit_nasfpn",
    "model_ovdet_resnet",
]


def entries(keys):
    """Tensors without memory for the lines "name shape type" of the sidecar."""
    found = {}
    for line in keys:
        name, shape, kind = line.split()[:3]
        size = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        found[name] = torch.empty(size, dtype=getattr(torch, kind), device="meta")
    return found


def test_golden_entries_of_full_size_releases(golden):
    """Every entry of every release has a name of ours, in the classes that the file is for."""
    models = golden("checkpoint_keys", FAMILY).meta["models"]
    for name, about in models.items():
        tensors = entries(about["keys"])
        layout = recognise_detector(set(tensors))
        assert layout == ("frozen_clip" if name.startswith("ovdet") else "fvit")
        renamed = (fvit_names if layout == "fvit" else frozen_clip_names)(tensors)
        parts = {key.partition(".")[0] for key in renamed}
        assert parts <= {"backbone", "neck", "rpn", "box_head", "mask_head", "classes"}, name
        assert not [key for key in renamed if "roi_head" in key or ".bn." in key or "_fcs" in key]


@pytest.mark.parametrize("name", MODELS)
def test_golden_releases_load_strictly(golden, name):
    detector = golden_detector(golden(name, FAMILY))
    report = detector.load_report
    assert report.layout == ("fvit" if "fvit" in name else "frozen_clip")
    assert report.unused == ()

    ours = detector.state_dict()
    again = golden_detector(golden(name, FAMILY))
    assert load_detector(again, ours).layout == "clim"
    for key, value in again.state_dict().items():
        assert torch.equal(value, ours[key]), key


def test_golden_saved_detector_is_read_again(golden, tmp_path):
    case = golden("model_ovdet_vit_fpn", FAMILY)
    detector = golden_detector(case)
    path = save_detector(detector, tmp_path / "new")
    again = golden_detector(case)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert load_detector(again, path).layout == "clim"
    for name, value in detector.backbone.model.visual.state_dict().items():
        assert torch.equal(again.backbone.model.visual.state_dict()[name], value)
    assert torch.equal(again.neck.outputs[0].conv.weight, detector.neck.outputs[0].conv.weight)
    about = json.loads((path.parent / "classes.json").read_text())
    assert about["names"] == list(detector.names)


def test_golden_releases_lose_no_entry(golden):
    case = golden("model_fvit_coco", FAMILY)
    for gone in ("neck.lateral_convs.0.conv.weight", "backbone.visual.blocks.0.norm1.weight"):
        tensors = case.under("sd/")
        del tensors[gone]
        with pytest.raises(ValueError, match="missing: ") as caught:
            load_detector(golden_detector(case), tensors)
        assert ("another tower" in str(caught.value)) == gone.startswith("backbone")

    tensors = {**case.under("sd/"), "neck.extra.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"unexpected: neck\.extra\.weight"):
        load_detector(golden_detector(case), tensors)


def test_golden_release_of_another_class_count_is_refused(golden):
    case = golden("model_fvit_lvis", FAMILY)
    detector = golden_detector(case)
    fewer = detector.with_classes(detector.classes.without([0]))
    number = detector.classes.num_classes
    with pytest.raises(ValueError, match=f"has {number} classes .* the detector {number - 1}"):
        load_detector(fewer, case.under("sd/"))

    names, rows = fewer.classes.names, fewer.classes.embeddings.clone()
    assert load_detector(fewer, case.under("sd/"), keep_classes=True).unused
    assert fewer.classes.names == names
    assert torch.equal(fewer.classes.embeddings, rows)


def test_golden_transfer_leaves_masks_and_temperature_out(golden):
    case = golden("model_fvit_lvis", FAMILY)
    transfer = golden_detector(
        case, masks=False, fixed_temperature=50.0, ensemble=EnsembleRules(0.2, 0.2, 120)
    )
    assert transfer.box_head.classifier.temperature == 50
    assert any(key.startswith("mask_head.") for key in transfer.load_report.unused)
    assert "box_head.classifier.temperature" in transfer.load_report.unused


def test_golden_classes_of_another_text_tower_are_refused(golden):
    detector = golden_detector(golden("model_fvit_coco", FAMILY))
    with pytest.raises(ValueError, match="embed the classes with the text tower"):
        detector.with_classes(ClassSet(["a"], torch.ones(1, 3)))

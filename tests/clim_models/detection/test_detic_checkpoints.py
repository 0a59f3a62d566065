"""Weights for the detectors of Detic + CLIM: of releases, and of ResNets of both styles."""

import pytest
import timm
import torch
from clim_models.detection import (
    C4Detector,
    C4Options,
    CascadeDetector,
    CascadeOptions,
    ClassSet,
    c4_names,
    cascade_names,
    load_detic,
    load_resnet,
)
from clim_models.detection.cascade_options import RGB_IMAGES
from clim_models.detection.features.resnet import ResNetRules
from golden_detic import FAMILY
from tiny_detic import BLOCKS, WIDTH, tiny_c4, tiny_cascade
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck, ResNet


def classifier():
    """A ResNet of torchvision with random statistics, and other gains than 1."""
    torch.manual_seed(0)
    model = ResNet(Bottleneck, list(BLOCKS), num_classes=5, width_per_group=64)
    narrow = {}
    shapes = {f"backbone.{k}": v.shape for k, v in tiny_cascade().backbone.state_dict().items()}
    for key, value in model.state_dict().items():
        shape = shapes.get(f"backbone.{key}", value.shape)
        narrow[key] = torch.rand(shape) * 0.2 if value.is_floating_point() else value
    return narrow


def reference(tensors, pixels, stride_in_1x1):
    """The maps of torchvision's own blocks, with the stride of the first ones moved on demand."""
    x = torch.nn.functional.conv2d(pixels, tensors["conv1.weight"], stride=2, padding=3)
    norm = torch.nn.BatchNorm2d(WIDTH).eval()
    norm.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("bn1.")})
    x = torch.nn.functional.max_pool2d(norm(x).relu(), 3, 2, 1)
    inputs, maps = WIDTH, []
    for stage in range(4):
        planes, stride = WIDTH * 2**stage, 1 + (stage > 0)
        shortcut = torch.nn.Sequential(
            torch.nn.Conv2d(inputs, planes * 4, 1, stride, bias=False),
            torch.nn.BatchNorm2d(planes * 4),
        )
        block = Bottleneck(inputs, planes, stride, shortcut).eval()
        prefix = f"layer{stage + 1}.0."
        block.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        if stride_in_1x1:
            block.conv1.stride, block.conv2.stride = (stride, stride), (1, 1)
        x = block(x)
        maps.append(x)
        inputs = planes * 4
    return maps


def test_equal_names_of_another_style_compute_something_else_and_are_refused():
    tensors, pixels = classifier(), torch.randn(1, 3, 64, 64)
    detector = tiny_cascade()
    report = load_resnet(detector, tensors, style="torchvision")
    assert set(report.unused) >= {"fc.weight", "fc.bias"}
    own = detector.backbone(pixels)
    for found, expected in zip(own, reference(tensors, pixels, False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    other = reference(tensors, pixels, True)
    assert not torch.allclose(own[-1], other[-1], rtol=1e-2)

    with pytest.raises(ValueError, match=r"stride_in_1x1=True"):
        load_resnet(detector, tensors, style="caffe")
    with pytest.raises(ValueError, match="legal values"):
        load_resnet(detector, tensors, style="timm")


def test_last_stage_of_c4_is_in_its_box_head(tmp_path):
    tensors, pixels = classifier(), torch.randn(1, 3, 64, 64)
    detector = tiny_c4()
    torch.save({"state_dict": tensors}, tmp_path / "resnet.pth")
    load_resnet(detector, tmp_path / "resnet.pth", style="caffe")
    maps = reference(tensors, pixels, True)
    found = detector.backbone(pixels)[-1]
    torch.testing.assert_close(found, maps[2], rtol=1e-4, atol=1e-4)
    whole = detector.box_head(found)
    torch.testing.assert_close(whole, maps[3].mean((2, 3)), rtol=1e-4, atol=1e-4)

    with pytest.raises(ValueError, match=r"stride_in_1x1=False"):
        load_resnet(detector, tensors, style="torchvision")
    rgb = tiny_c4(resnet=ResNetRules(BLOCKS, WIDTH, frozen=1), images=RGB_IMAGES)
    load_resnet(rgb, tensors, style="torchvision")

    del tensors["layer4.0.conv2.weight"]
    tensors["layer3.0.conv1.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"missing: box_head\.layer4\.0\.conv2\.weight") as caught:
        load_resnet(detector, tensors, style="caffe")
    assert "mis-shaped: backbone.layer3.0.conv1.weight (2, 2)" in str(caught.value)


def test_a_base_checkpoint_starts_captions_and_others_are_refused():
    base, tuned = tiny_c4(image_level=None), tiny_c4()
    assert load_detic(tuned, base.state_dict()).layout == "clim"
    assert torch.equal(tuned.rpn.deltas.weight, base.rpn.deltas.weight)
    report = load_detic(base, tuned.state_dict())
    assert "image_level.captions.bias" in report.unused

    lacking = tuned.state_dict()
    del lacking["image_level.tags.bias"]
    with pytest.raises(ValueError, match=r"missing: image_level\.tags\.bias"):
        load_detic(tiny_c4(), lacking)
    released = {"roi_head.bbox_head.0.fc_cls.linear.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match="build a C4Detector for OV-COCO"):
        load_detic(base, released)
    with pytest.raises(ValueError, match="3 classes of 8 channels, the detector 2"):
        load_detic(base.with_classes(base.classes.without([2])), base.state_dict())
    kept = base.with_classes(base.classes.without([2]))
    load_detic(kept, base.state_dict(), keep_classes=True)
    assert kept.names == ("cat", "dog")


def published(is_coco, count=3, **options):
    """A detector of the published size, without memory."""
    classes = ClassSet([f"class {i}" for i in range(count)], torch.ones(count, 512), [0])
    with torch.device("meta"):
        if is_coco:
            return C4Detector(classes, C4Options(**options)).to("meta")
        counts = torch.ones(count)
        return CascadeDetector(classes, counts, CascadeOptions(**options)).to("meta")


@pytest.mark.parametrize("build", [resnet50, lambda: timm.create_model("resnet50")])
def test_resnet50_of_torchvision_and_timm_has_all_layers(build):
    with torch.device("meta"):
        weights = build().state_dict()
    report = load_resnet(published(False), weights, style="torchvision")
    assert {key for key in report.unused if not key.endswith("tracked")} == {
        "fc.weight",
        "fc.bias",
    }
    rgb = {"resnet": ResNetRules(frozen=1), "images": RGB_IMAGES}
    assert load_resnet(published(True, **rgb), weights, style="torchvision").loaded == report.loaded
    # Those of Caffe have the same names.
    assert load_resnet(published(True), weights, style="caffe").loaded == report.loaded


@pytest.mark.parametrize("kind", ["ovcoco_base", "ovcoco_w_tags", "ovlvis_boxsup", "ovlvis_clim"])
def test_golden_releases_load_strictly(golden, kind):
    keys = golden("case13_layout", FAMILY).meta[kind]["keys"]
    released = {key: torch.empty(tuple(shape), device="meta") for key, shape in keys.items()}
    is_coco = kind.startswith("ovcoco")
    renamed = (c4_names if is_coco else cascade_names)(released)
    count = len(renamed["classes.embeddings"])
    report = load_detic(published(is_coco, count), released)
    assert report.layout == ("detic_coco" if is_coco else "detic_lvis")
    with pytest.raises(ValueError, match="build a C4Detector"):
        load_detic(published(not is_coco), released)

    lost = next(key for key in released if "rpn_head" in key)
    del released[lost]
    with pytest.raises(ValueError, match=r"missing: (rpn|centres)\."):
        load_detic(published(is_coco, count), released)

"""Maps of frozen towers and necks, against the golden cases 01 and 02."""

import pytest
import torch
from clim_models.detection.features.backbone import StageBackbone, ViTBackbone
from golden_detectors import FAMILY, close, golden_detector
from tiny_towers import build_resnet, build_timm, build_vit


@pytest.fixture
def detector(golden):
    return golden_detector(golden("model_fvit_coco", FAMILY))


def test_golden_pyramid_in_evaluation(golden, detector):
    case = golden("case01_pyramid", FAMILY)
    maps = detector.backbone(case.tensor("in/x"), with_clip=True)
    for level, feature_map in enumerate(maps.pyramid):
        close(case, f"out/eval/map{level}", feature_map[:1])
    close(case, "out/eval/dense", maps.clip)


def test_golden_pyramid_in_training(golden, detector):
    case = golden("case01_pyramid", FAMILY)
    detector.train()
    maps = detector.backbone(case.tensor("in/x"), with_clip=False)
    assert maps.clip is None
    key = case.key("out/train/map0_every")
    step = maps.pyramid[0].shape[1] // case.arrays[key].shape[1]
    close(case, key, maps.pyramid[0][:, ::step])
    norm = detector.backbone.pyramid.to_quarter[1]
    close(case, "out/train/running_mean", norm.running_mean)
    close(case, "out/train/running_var", norm.running_var)


def test_golden_trainable_parts(golden, detector):
    case = golden("case01_pyramid", FAMILY)
    trainable = [name for name, p in detector.backbone.named_parameters() if p.requires_grad]
    ours = [
        name.replace("interpolate1.", "pyramid.to_quarter.").replace(
            "interpolate2.0.", "pyramid.to_half."
        )
        for name in case.meta["trainable"]
    ]
    assert sorted(trainable) == sorted(ours)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_fpn(golden, detector, mode):
    case, before = golden("case02_fpn", FAMILY), golden("case01_pyramid", FAMILY)
    maps = [before.tensor(f"out/eval/map{level}") for level in range(4)]
    detector.train(mode == "train")
    for level, found in enumerate(detector.neck(maps)):
        close(case, f"out/{mode}/level{level}", found)
    if mode == "train":
        close(case, "out/train/running_var_fpn0", detector.neck.outputs[0].norm.running_var)


def test_the_tower_stays_frozen_and_in_evaluation():
    backbone = ViTBackbone(build_vit(layers=4), [0, 1, 2, 3]).train()
    assert not backbone.model.training
    assert backbone.pyramid.training
    maps = backbone(torch.randn(2, 3, 32, 48), with_clip=True)
    assert [x.shape[2:] for x in maps.pyramid] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert backbone.strides == (2, 4, 8, 16)
    assert not maps.clip.requires_grad
    maps.pyramid[0].sum().backward()
    assert all(p.grad is None for p in backbone.model.parameters())


@pytest.mark.parametrize("build", [build_resnet, lambda: build_timm("convnext")])
def test_stages_have_their_own_strides(build):
    backbone = StageBackbone(build())
    assert backbone.strides == (4, 8, 16, 32)
    maps = backbone(torch.randn(1, 3, 96, 128), with_clip=True)
    assert [x.shape[1] for x in maps.pyramid] == list(backbone.channels)
    features = backbone.region_features(maps.clip, torch.tensor([[0, 5.0, 8, 70, 90]]))
    assert features.shape == (1, backbone.embed_dim)
    if backbone.pools:
        torch.testing.assert_close(features.norm(dim=1), torch.ones(1))


def test_wrong_blocks_are_refused():
    with pytest.raises(ValueError, match="name four blocks"):
        ViTBackbone(build_vit(), [0, 1])
    with pytest.raises(ValueError, match="it is no ViT"):
        ViTBackbone(build_resnet(), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="pass numbers from 0 to 2"):
        ViTBackbone(build_vit(), [0, 1, 2, 3])


@pytest.mark.parametrize("kind", ["siglip", "cls", "avg", "hybrid"])
def test_any_vit_is_a_backbone(kind):
    model = build_timm(kind)
    last = model.num_blocks - 1
    maps = ViTBackbone(model, [0, 0, last, last]).eval()(torch.randn(1, 3, 64, 64), with_clip=True)
    assert maps.pyramid[2].shape[2:] == maps.clip.shape[2:]


def test_pyramid_and_dense_are_those_of_their_own_calls():
    model = build_vit().requires_grad_(False)
    x = torch.randn(2, 3, 40, 32)
    maps, dense = model.encode_pyramid_and_dense(x, [0, 2])
    torch.testing.assert_close(dense, model.encode_dense(x))
    for found, expected in zip(maps, model.encode_pyramid(x, [0, 2]), strict=True):
        assert torch.equal(found, expected)

"""Towers from outside: a reader in a test file passes what ours pass."""

from collections.abc import Sequence

import pytest
import torch
from clim_models import Attended, Dense, ImageFeature, Pooled, RegionModel, register_tower
from clim_models.towers import GradientPath, Stem, Tower, find_tower, registry
from clim_models.towers.tower import refuse
from open_clip.model import CLIP
from tiny_towers import TEXT
from torch import Tensor, nn


class Patches(nn.Module):
    """An image tower: one convolution, one block, and the mean of its positions."""

    image_size = (16, 16)

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.block = nn.Conv2d(8, 24, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.block(self.embed(images).tanh()).mean((-2, -1))


class PatchesTower:
    """Reads `Patches`; satisfies the Protocol without a base class."""

    kind = "patches"
    stride = 4
    num_blocks = 1
    supports = frozenset()

    def __init__(self, visual: nn.Module, *, antialias: bool):
        self.visual = visual
        self.grad_checkpointing = False

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        x = self.visual.embed(images).tanh()
        return Stem(x, (x.shape[2], x.shape[3]), maps=dict.fromkeys(keep, x))

    def image(self, stem: Stem) -> Tensor:
        return self.visual.block(stem.tokens).mean((-2, -1))

    def dense(self, stem: Stem, readout: str) -> Tensor:
        return self.visual.block(stem.tokens)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        refuse(self, "attend")

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        refuse(self, "align")

    def pyramid(self, stem: Stem, blocks: Sequence[int]) -> list[Tensor]:
        return [stem.maps[i] for i in blocks]

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        return [list(self.visual.block.parameters())]

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        return []

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return []


@pytest.fixture
def model(monkeypatch) -> RegionModel:
    """A RegionModel of a registered tower, which is forgotten after the test."""
    monkeypatch.setattr(registry, "_ENTRIES", list(registry._ENTRIES))
    register_tower(lambda visual: isinstance(visual, Patches), PatchesTower)
    vision = {"image_size": 16, "layers": 1, "width": 32, "head_width": 32, "patch_size": 8}
    torch.manual_seed(0)
    clip = CLIP(embed_dim=24, vision_cfg=vision, text_cfg=TEXT)
    clip.visual = Patches()
    return RegionModel(clip)


def test_a_tower_from_outside_does_what_ours_do(model):
    x = torch.randn(2, 3, 16, 24)
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 0.5]])] * 2
    with torch.no_grad():
        found = model.encode(x, [ImageFeature(), Dense(), Pooled("boxes")], boxes=boxes)
    assert model.tower_kind == "patches"
    assert torch.equal(found[ImageFeature()], model.encode_image(x))
    assert found[Dense()].shape == (2, 24, 4, 6)
    assert torch.equal(found[Pooled("boxes")], model.encode_boxes(x, boxes))
    assert model.encode_pyramid(x, [0])[0].shape == (2, 8, 4, 6)
    assert model.freeze(1) == [
        "clip.logit_scale",
        "clip.visual.block.weight",
        "clip.visual.block.bias",
    ]


def test_what_it_cannot_is_refused_with_its_name(model):
    with pytest.raises(ValueError, match="this patches tower averages them"):
        model.encode(torch.zeros(1, 3, 16, 16), [Attended("boxes")], boxes=[torch.zeros(0, 4)])


def test_towers_from_outside_are_asked_first_and_listed(model):
    class Mine(PatchesTower):
        kind = "mine"

    register_tower(lambda visual: isinstance(visual, Patches), Mine, description="my patches")
    assert find_tower(model.visual).kind == "mine"
    with pytest.raises(ValueError, match=r"(?s)my patches.*PatchesTower.*ModifiedResNet"):
        find_tower(nn.Linear(2, 2))


METHODS = [name for name in vars(Tower) if not name.startswith("_")]


@pytest.mark.parametrize(
    "kind", ["vit", "eva", "resnet", "timm_avg", "timm_siglip", "timm_convnext"]
)
def test_every_tower_satisfies_the_protocol(towers, kind):
    tower = towers[kind]().tower
    assert [name for name in METHODS if not hasattr(tower, name)] == []
    assert isinstance(tower.grad_checkpointing, bool)
    stem = tower.stem(torch.zeros(1, 3, 2 * tower.stride, 2 * tower.stride))
    if "attend" not in tower.supports:
        with pytest.raises(ValueError, match=f"this {tower.kind} tower"):
            tower.attend(stem, torch.ones(1, 1, 4, dtype=torch.bool))
    if "align" not in tower.supports:
        with pytest.raises(ValueError, match=f"{tower.kind} towers do not align"):
            tower.align(stem, [torch.zeros(0, 4)])

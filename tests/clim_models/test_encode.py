"""`encode` and `encode_pyramid`: requests, what is refused, and maps of named blocks."""

import pytest
import torch
from clim_models import REQUESTS, Attended, Dense, ImageFeature, Pooled, Readout, request_named
from tiny_towers import build_eva, build_vit
from torch import nn

KINDS = [
    "vit",
    "eva",
    "resnet",
    "timm_cls",
    "timm_avg",
    "timm_siglip",
    "timm_convnext",
    "timm_efficientnet",
]


def picture(model, images: int = 2) -> torch.Tensor:
    return torch.randn(images, 3, 2 * model.stride, 3 * model.stride)


class Levels(nn.Module):
    """The four levels that F-ViT makes of raw maps, under the names of the golden state dict."""

    def __init__(self, width: int):
        super().__init__()

        def enlarge() -> nn.Module:
            return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)

        self.interpolate1 = nn.Sequential(enlarge(), nn.BatchNorm2d(width), nn.GELU(), enlarge())
        self.interpolate2 = nn.Sequential(enlarge())
        self.interpolate4 = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            self.interpolate1(maps[0]),
            self.interpolate2(maps[1]),
            maps[2],
            self.interpolate4(maps[3]),
        ]


def test_golden_pyramid(golden):
    case = golden("case10_fvit")
    tower = golden(case.meta["weights_from"].partition(".npz")[0])
    model = build_eva(tower)
    levels = Levels(case.meta["config"]["vision_cfg"]["width"])
    levels.load_state_dict(case.under("sd/"))
    x = case.tensor("in/x")

    with torch.no_grad():
        maps = model.encode_pyramid(x, case.meta["config"]["out_indices"])
        levels.train()
        found = {"train/map0": levels(maps)[0]}
        # Training has changed the running statistics.
        levels.load_state_dict(case.under("sd/"))
        levels.eval()
        found |= {f"eval/map{i}": level for i, level in enumerate(levels(maps))}
        found["eval/dense"] = model.encode_dense(x)

    for key, value in found.items():
        expected = case.tensor(f"out/{key}")
        # The golden values carry this much rounding themselves; ours adds its own.
        noise = case.meta["keys"][f"out/{key}"]["fp32_vs_fp64_max_abs_diff"]
        torch.testing.assert_close(
            value, expected, atol=max(5e-5, 5 * noise), rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pyramid_reads_the_one_stem(towers, kind, checkpointing):
    """Any blocks in any order, the same tokens as without, and gradients reach the tower."""
    model = towers[kind]()
    model.set_grad_checkpointing(checkpointing)
    x = picture(model)
    blocks = list(range(model.num_blocks))
    maps = model.encode_pyramid(x, blocks)

    h, w = model.grid_size(*x.shape[-2:])
    assert maps[-1].shape[0] == 2
    assert tuple(maps[-1].shape[-2:]) == (h, w)
    assert all(m.shape[-2] % h == 0 and m.shape[-1] % w == 0 for m in maps)
    for found, again in zip(model.encode_pyramid(x, blocks[::-1]), maps[::-1], strict=True):
        assert torch.equal(found, again)

    with torch.no_grad():
        plain = model.tower.stem(x)
        kept = model.tower.stem(x, keep=blocks)
    assert torch.equal(plain.tokens, kept.tokens)
    assert plain.maps == {}

    maps[0].square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.visual.parameters())


@pytest.mark.parametrize("kind", ["vit", "eva", "timm_cls"])
def test_pyramid_holds_what_the_blocks_return(towers, kind):
    """Hooks on the blocks of the wrapped model are an independent way to the same maps."""
    model = towers[kind]()
    trunk = getattr(model.visual, "trunk", None)
    blocks = model.visual.transformer.resblocks if trunk is None else trunk.blocks
    seen = {}
    for i, block in enumerate(blocks[:-1]):
        block.register_forward_hook(lambda m, a, output, i=i: seen.update({i: output}))
    x = picture(model)

    with torch.no_grad():
        maps = model.encode_pyramid(x, range(model.num_blocks))
        last = model.tower.project(maps[-1].flatten(2).transpose(1, 2))
        dense = model.encode_dense(x, normalize=False)
    for i, tokens in seen.items():
        assert torch.equal(maps[i].flatten(2).transpose(1, 2), tokens[:, 1:])
    torch.testing.assert_close(last.transpose(1, 2).view_as(dense), dense, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [[], [3], [-1], [0, 9]])
def test_pyramid_refuses_blocks_that_are_not_there(blocks):
    with pytest.raises(ValueError, match="pass numbers from 0 to 2"):
        build_vit().encode_pyramid(torch.zeros(1, 3, 32, 32), blocks)


def test_one_forward_answers_all_requests(monkeypatch):
    model = build_vit()
    stems = []
    monkeypatch.setattr(
        model.tower, "stem", lambda *a, s=model.tower.stem, **k: stems.append(1) or s(*a, **k)
    )
    x = picture(model)
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 0.6]])] * 2
    masks = [torch.ones(1, 2, 3)] * 2
    requests = list(REQUESTS.values())
    with torch.no_grad():
        found = model.encode(x, requests, boxes=boxes, masks=masks)
        assert len(stems) == 1
        by_name = model.encode_regions(x, boxes, masks, tuple(REQUESTS))

    assert list(found) == requests
    assert list(by_name) == list(REQUESTS)
    assert all(torch.equal(found[request_named(name)], rows) for name, rows in by_name.items())
    assert found[Pooled("boxes")].shape == (2, 24)
    assert found[Dense()].shape == (2, 24, 2, 3)


def test_a_call_of_the_module_is_encode():
    model = build_vit()
    x = picture(model)
    assert torch.equal(model(x, [ImageFeature()])[ImageFeature()], model.encode_image(x))


def test_unnormalised_regions_are_means_of_unit_vectors():
    model = build_vit()
    x = picture(model)
    whole = [torch.ones(1, 2, 3)] * 2
    with torch.no_grad():
        raw = model.encode(x, [Dense(), Pooled("masks")], masks=whole, normalize=False)
        unit_map = model.encode_dense(x)
    torch.testing.assert_close(raw[Pooled("masks")], unit_map.mean((-2, -1)), atol=1e-6, rtol=0)
    assert (raw[Pooled("masks")].norm(dim=-1) < 1).all()
    assert not torch.allclose(raw[Dense()].norm(dim=1), torch.ones(2, 2, 3))


def test_requests_are_values():
    assert Pooled("boxes") == Pooled("boxes", "value_residual")
    assert Pooled("boxes", "value") == Pooled("boxes", Readout.VALUE) != Pooled("masks", "value")
    assert len({Dense(), Dense("value"), Dense(Readout.VALUE)}) == 2


BOXES = [torch.zeros(0, 4)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: Pooled("crops"), "legal values are 'boxes' and 'masks'"),
        (lambda m, x: Attended("crops"), "legal values are 'boxes' and 'masks'"),
        (lambda m, x: Dense("residual"), "legal values are value_residual, value, sclip"),
        (lambda m, x: m.encode(x, ["boxes"], boxes=BOXES), "'boxes' is no request"),
        (lambda m, x: m.encode(x, [Attended("boxes")]), r"needs boxes; pass boxes=\[...\]"),
        (lambda m, x: request_named("crops"), "output 'crops' is unknown"),
        (
            lambda m, x: m.encode_boxes(x, BOXES, mode="attention", readout="value"),
            "readout='value' has no effect with mode='attention'",
        ),
        (
            lambda m, x: m.encode_masks(x, [torch.ones(1, 4, 4)], "attention", readout="value"),
            "pass mode='mean'",
        ),
        (lambda m, x: m.encode_boxes(x, BOXES, readout="nonsense"), "readout='nonsense'"),
        (
            lambda m, x: m.encode_boxes(x, BOXES, mode="attention", readout="nonsense"),
            "readout='nonsense'",
        ),
    ],
)
def test_mistakes_are_answered_with_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call(build_vit(), torch.zeros(1, 3, 32, 32))

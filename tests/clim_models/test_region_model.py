"""RegionModel: golden features of three tower families, and the properties every tower must
have."""

import pytest
import torch
from clim_models import RegionModel
from clim_models.features import READOUTS, REQUESTS
from clim_models.towers.positions import resample_positions, rotary_table
from tiny_towers import build_clip, build_eva, build_vit
from tolerance import float32_sum
from torch import nn

TOLERANCE = {"atol": 5e-5, "rtol": 0}
EVA_CASES = ["case01_eva_b", "case01_eva_l"]
KINDS = [
    "vit",
    "eva",
    "resnet",
    "timm_cls",
    "timm_avg",
    "timm_siglip",
    "timm_convnext",
    "timm_efficientnet",
    "timm_hybrid",
    "custom_vit",
    "coca",
    "timm_pe_core",
    "timm_pe_spatial",
    "timm_eva_post_norm",
    "timm_dinov3",
    "timm_tips",
    "timm_naflex",
    "timm_naflex_gap",
]
WITHOUT_ATTENTION = {
    "timm_avg",
    "timm_convnext",
    "timm_efficientnet",
    "timm_pe_spatial",
    "timm_naflex_gap",
}
WITH_ATTENTION = [kind for kind in KINDS if kind not in WITHOUT_ATTENTION]
# The last layer is a pool or a convolution: positions cannot mix in it.
WITHOUT_MIXING = {
    "resnet",
    "coca",
    "timm_siglip",
    "timm_pe_core",
    "timm_naflex",
    "timm_convnext",
    "timm_efficientnet",
}


def outputs_of(kind: str) -> list[str]:
    """Every output that a kind of tower has."""
    mixing = ("sclip", "clearclip", "naclip")
    return [
        name
        for name in REQUESTS
        if (kind in WITH_ATTENTION or "attention" not in name)
        and (kind not in WITHOUT_MIXING or not name.endswith(mixing))
    ]


def by_image(rows: torch.Tensor, index: torch.Tensor, images: int) -> list[torch.Tensor]:
    return [rows[index == i] for i in range(images)]


def boxes_of(case, images: int) -> list[torch.Tensor]:
    rois = case.tensor("in/rois")
    return by_image(rois[:, 1:], rois[:, 0], images)


def masks_of(case, suffix: str, images: int) -> list[torch.Tensor]:
    return by_image(
        case.tensor(f"in/masks{suffix}"), case.tensor(f"in/mask_image_index{suffix}"), images
    )


@pytest.mark.device
@pytest.mark.parametrize("name", EVA_CASES)
def test_golden_eva_features(golden, name):
    case = golden(name)
    model = build_eva(case, partial_patches="crop")
    assert model.load_report.layout == "eva-clip"
    x, large = case.tensor("in/x"), case.tensor("in/x_large")
    with torch.no_grad():
        got = {
            "encode_image": model.encode_image(x, normalize=False),
            "encode_image_normalized": model.encode_image(x),
            "encode_image_large": model.encode_image(large, normalize=False),
            "encode_text": model.encode_text(case.tensor("in/text"), normalize=False),
            "encode_text_normalized": model.encode_text(case.tensor("in/text")),
            "encode_dense_tokens": model.encode_dense(x).flatten(2).transpose(1, 2),
            "ext_encode_dense_nonsquare": model.encode_dense(case.tensor("in/x_nonsquare")),
            "ext_encode_image_nonsquare": model.encode_image(
                case.tensor("in/x_nonsquare"), normalize=False
            ),
            "logit_scale_exp": model.logit_scale.exp(),
        }
        for suffix in ("", "_large", "_large2", "_odd"):
            got[f"encode_dense{suffix}"] = model.encode_dense(case.tensor(f"in/x{suffix}"))
        for suffix, images in (("", x), ("_large", large)):
            boxes, masks = boxes_of(case, len(images)), masks_of(case, suffix, len(images))
            got[f"roi_features{suffix}"] = model.encode_boxes(images, boxes, normalize=False)
            got[f"mask_pool{suffix}"] = model.encode_masks(images, masks, normalize=False)
        got["pseudo_boxes_normalized_large"] = model.encode_boxes(large, boxes)
        got["encode_masks_large"] = model.encode_masks(large, masks)
        both = model.encode_regions(large, boxes, outputs=("boxes", "image"))
        got["rois_and_image.rois"], got["rois_and_image.image"] = both["boxes"], both["image"]
    for key, value in got.items():
        torch.testing.assert_close(
            value, case.tensor(f"out/{key}"), **TOLERANCE, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.device
@pytest.mark.parametrize("name", EVA_CASES)
def test_golden_eva_norm_eps_positions_and_rope(golden, name):
    case = golden(name)
    model = build_eva(case)
    trunk = model.visual.trunk
    with torch.no_grad():
        probes = {
            "ln_probe_vision": trunk.norm(case.tensor("in/ln_probe_v")),
            "ln_probe_inner_attn": trunk.blocks[0].attn.norm(case.tensor("in/ln_probe_v")),
            "ln_probe_text": model.clip.text.ln_final(case.tensor("in/ln_probe_t")),
        }
        for suffix, images in (("native", "x"), ("large", "x_large")):
            grid = model.grid_size(*case.tensor(f"in/{images}").shape[-2:])
            sin, cos = rotary_table(trunk.rope, grid, model.device).chunk(2, -1)
            probes[f"rope_sin_{suffix}"], probes[f"rope_cos_{suffix}"] = sin, cos
        grid = model.grid_size(*case.tensor("in/x_nonsquare").shape[-2:])
        probes["ext_rope_cos_nonsquare"] = rotary_table(trunk.rope, grid, model.device).chunk(
            2, -1
        )[1]
        for suffix in ("large", "nonsquare"):
            new = model.grid_size(*case.tensor(f"in/x_{suffix}").shape[-2:])
            old = trunk.patch_embed.grid_size
            probes[f"pos_embed_{suffix}"] = resample_positions(
                trunk.pos_embed, old, new, prefix=1, antialias=False
            )
    for key, value in probes.items():
        torch.testing.assert_close(
            value, case.tensor(f"out/{key}"), atol=5e-6, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.device
@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_golden_vit_features(golden, activation):
    case = golden("case02_vit")
    quick = activation == "quickgelu"
    model = build_clip(case, quick_gelu=quick, partial_patches="crop", box_patches="truncate")
    x, large = case.tensor("in/x"), case.tensor("in/x_large")
    got = {}
    with torch.no_grad():
        for suffix in ("", "_large", "_nonsquare"):
            got[f"encode_image{suffix}"] = model.encode_image(
                case.tensor(f"in/x{suffix}"), normalize=False
            )
        for suffix in ("", "_large", "_nonsquare", "_odd"):
            got[f"encode_dense{suffix}"] = model.encode_dense(case.tensor(f"in/x{suffix}"))
        got["encode_text"] = model.encode_text(case.tensor("in/text"), normalize=False)
        got["ln_probe_post"] = model.visual.ln_post(case.tensor("in/ln_probe"))
        for suffix, images in (("", x), ("_large", large)):
            boxes, masks = boxes_of(case, len(images)), masks_of(case, suffix, len(images))
            outputs = ("boxes", "boxes_attention", "masks", "masks_attention")
            found = model.encode_regions(images, boxes, masks, outputs, normalize=False)
            names = ("roi_v2", "roi_v1", "mask_pool", "mask_attn_pool")
            got |= {f"{name}{suffix}": found[output] for name, output in zip(names, outputs)}
        got["pseudo_boxes_v1_normalized_large"] = model.encode_boxes(large, boxes, mode="attention")
        got["pseudo_boxes_v2_normalized_large"] = model.encode_boxes(large, boxes)
        got["encode_masks_large"] = model.encode_masks(large, masks)
        got["encode_masks_attn_large"] = model.encode_masks(large, masks, mode="attention")
        both = model.encode_regions(large, boxes, outputs=("boxes", "image"))
        got["rois_and_image.rois"], got["rois_and_image.image"] = both["boxes"], both["image"]
        table, native = model.visual.positional_embedding[None], model.grid_size(*model.image_size)
        for suffix in ("large", "nonsquare"):
            new = model.grid_size(*case.tensor(f"in/x_{suffix}").shape[-2:])
            if (
                f"out/{activation}/pos_embed_{suffix}" in case.arrays
            ):  # for one activation: they do not depend on it
                got[f"pos_embed_{suffix}"] = resample_positions(
                    table, native, new, prefix=1, antialias=False
                )[0]
    for key, value in got.items():
        expected = case.tensor(f"out/{activation}/{key}")
        torch.testing.assert_close(value, expected, **TOLERANCE, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.device
def test_golden_resnet_features(golden):
    case = golden("case03_resnet")
    model = build_clip(case)
    got = {}
    with torch.no_grad():
        got["encode_image"] = model.encode_image(case.tensor("in/x"), normalize=False)
        got["encode_text"] = model.encode_text(case.tensor("in/text"), normalize=False)
        for suffix in ("", "_large", "_nonsquare"):
            got[f"encode_dense{suffix}"] = model.encode_dense(case.tensor(f"in/x{suffix}"))
        for suffix in ("", "_large"):
            images = case.tensor(f"in/x{suffix}")
            boxes = boxes_of(case, len(images))
            got[f"roi_attnpool{suffix}"] = model.encode_boxes(
                images, boxes, mode="attention", normalize=False
            )
            got[f"roi_dense{suffix}"] = model.encode_boxes(images, boxes, normalize=False)
        large = case.tensor("in/x_large")
        got["mask_pool_large"] = model.encode_masks(
            large, masks_of(case, "_large", len(large)), normalize=False
        )
        table = model.visual.attnpool.positional_embedding[None]
        old, new = (model.grid_size(*size) for size in (model.image_size, large.shape[-2:]))
        got["pos_embed_large"] = resample_positions(table, old, new, prefix=1, antialias=False)[0]
    for key, value in got.items():
        torch.testing.assert_close(
            value, case.tensor(f"out/{key}"), **TOLERANCE, msg=lambda m, k=key: f"{k}: {m}"
        )


def layers_of(model: RegionModel) -> tuple[str, dict[str, nn.Module]]:
    """Name of what enters the first layer, and the layers, as the sidecars call them.

    Without a transformer's last block: it runs for those tokens only that are read.
    """
    visual = model.visual
    if model.tower_kind == "resnet":
        return "stem", {f"layer{i}": getattr(visual, f"layer{i}") for i in range(1, 5)}
    eva = model.tower_kind == "eva"
    blocks = visual.trunk.blocks if eva else visual.transformer.resblocks
    return "tokens_embed" if eva else "tokens_ln_pre", {
        f"tokens_block{i}": block for i, block in enumerate(blocks[:-1])
    }


@pytest.mark.device
@pytest.mark.parametrize("name", [*EVA_CASES, "case02_vit", "case03_resnet"])
def test_golden_layer_by_layer(golden, name):
    """What each layer makes of the first image; a fault of one layer shows where it is."""
    case = golden(name)
    steps = {key.rpartition("/dbg_")[2]: key for key in case.arrays if "/dbg_" in key}
    quick_gelu = not any("/gelu/" in key for key in steps.values())
    model = build_eva(case) if name in EVA_CASES else build_clip(case, quick_gelu=quick_gelu)
    before, layers = layers_of(model)
    seen = {}
    for layer, module in layers.items():
        last = (
            module[-1] if isinstance(module, nn.Sequential) else module
        )  # stages are run block by block
        last.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output}))
    first = next(iter(layers.values()))
    first = first[0] if isinstance(first, nn.Sequential) else first
    first.register_forward_pre_hook(lambda _, inputs: seen.update({before: inputs[0]}))
    with torch.no_grad():
        model.encode_image(case.tensor("in/x")[:1])
    assert list(seen) == [before, *layers]
    assert steps.keys() & seen.keys()
    for layer, value in seen.items():
        if layer not in steps:
            continue
        expected = case.tensor(steps[layer])
        torch.testing.assert_close(
            value, expected, atol=1e-4, rtol=0, msg=lambda m, k=layer: f"{k}: {m}"
        )


def sample(model: RegionModel, images: int = 2, size=(64, 96)):
    size = tuple(max(s, 2 * model.stride) // model.stride * model.stride for s in size)
    x = torch.randn(images, 3, *size)
    boxes = [
        torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.7, 0.9]]),
        torch.tensor([[0.5, 0.5, 0.6, 0.6]]),
    ]
    h, w = model.grid_size(*size)
    masks = [(torch.rand(3, h, w) > 0.4).int(), (torch.rand(1, h, w) > 0.4).int()]
    return x, boxes, masks


@pytest.mark.parametrize("kind", KINDS)
def test_encode_image_at_native_size_is_open_clips(towers, kind):
    model = towers[kind]()
    x = torch.randn(2, 3, *model.image_size)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_image(x), model.clip.encode_image(x, normalize=True), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_gives_what_the_single_calls_give(towers, kind):
    model = towers[kind]()
    x, boxes, masks = sample(model)
    outputs = outputs_of(kind)
    with torch.no_grad():
        found = model.encode_regions(x, boxes, masks, outputs)
        single = {"image": model.encode_image(x)}
        for readout, suffix in (
            ("value_residual", ""),
            *((name, f"_{name}") for name in READOUTS if f"dense_{name}" in outputs),
        ):
            single[f"dense{suffix}"] = model.encode_dense(x, readout=readout)
            single[f"boxes{suffix}"] = model.encode_boxes(x, boxes, readout=readout)
            single[f"masks{suffix}"] = model.encode_masks(x, masks, readout=readout)
        if kind in WITH_ATTENTION:
            single["boxes_attention"] = model.encode_boxes(x, boxes, mode="attention")
            single["masks_attention"] = model.encode_masks(x, masks, mode="attention")
    assert set(found) == set(single)
    for name, value in found.items():
        assert value.isfinite().all()
        assert not value.requires_grad
        torch.testing.assert_close(
            value, single[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
        norms = value.norm(dim=1 if name.startswith("dense") else -1)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "kind", ["vit", "custom_vit", "eva", "timm_cls", "timm_eva_post_norm", "timm_dinov3"]
)
def test_dense_is_the_last_block_under_a_diagonal_mask(towers, kind):
    """Every patch attending to itself alone is the value path: an independent way to the same
    numbers."""
    model = towers[kind]()
    x = torch.randn(2, 3, *model.image_size)
    tower = model.tower
    with torch.no_grad():
        stem = tower.stem(x)
        blocked = ~torch.eye(stem.tokens.shape[1], dtype=torch.bool)
        mask = torch.zeros(blocked.shape).masked_fill(blocked, float("-inf"))
        options = {} if stem.rope is None else {"rope": stem.rope}
        tokens = tower.project(tower.blocks[-1](stem.tokens, attn_mask=mask, **options))[
            :, tower.prefix :
        ]
        torch.testing.assert_close(
            model.encode_dense(x, normalize=False).flatten(2).transpose(1, 2),
            tokens,
            atol=2e-5,
            rtol=0,
        )


@pytest.mark.parametrize("kind", WITH_ATTENTION)
def test_attention_readout_of_the_whole_image_is_the_image_feature(towers, kind):
    model = towers[kind]()
    x = torch.randn(2, 3, *model.image_size)
    grid = model.grid_size(*model.image_size)
    masks = [torch.ones(1, *grid)] * 2
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 1.0]])] * 2
    with torch.no_grad():
        image = model.encode_image(x)
        whole = model.encode_regions(x, boxes, masks, ("boxes_attention", "masks_attention"))
    for name, rows in whole.items():
        torch.testing.assert_close(rows, image, atol=1e-5, rtol=0, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("kind", WITH_ATTENTION)
def test_attention_readout_sees_nothing_outside_its_region_in_the_last_layer(towers, kind):
    """Different regions of one image differ, the same region twice does not."""
    model = towers[kind]()
    x, _, _ = sample(model)
    h, w = model.grid_size(*x.shape[-2:])
    left = torch.zeros(h, w)
    left[:, : w // 2] = 1
    masks = [torch.stack([left, 1 - left, left]), left[None]]
    with torch.no_grad():
        a, b, c, d = model.encode_masks(x, masks, mode="attention")
    torch.testing.assert_close(a, c)
    assert (a - b).norm() > 1e-3
    with torch.no_grad():  # padding rows of other images change nothing
        alone = model.encode_masks(x[1:], [left[None]], mode="attention")
    torch.testing.assert_close(alone[0], d, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_no_loss_and_no_gradient(towers, kind):
    outputs = outputs_of(kind)
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = towers[kind]()
        model.freeze(unlocked_blocks=2)
        model.train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(2)
        x, boxes, masks = sample(model)
        found = model.encode_regions(x, boxes, masks, outputs)
        weights = {n: torch.linspace(-1, 1, v.numel()).view_as(v) for n, v in found.items()}
        loss = sum((v * weights[n]).sum() for n, v in found.items())
        loss.backward()
        results.append(
            (loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        )
    (loss_off, grads_off), (loss_on, grads_on) = results
    assert loss_off == loss_on
    assert grads_off.keys() == grads_on.keys()
    assert len(grads_on) > 0
    for name, grad in grads_off.items():
        assert torch.equal(grad, grads_on[name]), name


def test_checkpointing_frees_memory_in_the_dense_path(towers):
    """Fewer tensors are kept for the backward pass, so the option really acts."""
    kept = []
    for checkpointing in (False, True):
        model = towers["vit"](layers=6)
        model.set_grad_checkpointing(checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t
        ):
            model.encode_dense(torch.randn(2, 3, 64, 64)).sum()
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_batches_are_independent_and_order_is_kept():
    model = build_vit()
    x, boxes, masks = sample(model)
    with torch.no_grad():
        together = model.encode_regions(x, boxes, masks)
        apart = [
            model.encode_regions(x[i : i + 1], boxes[i : i + 1], masks[i : i + 1]) for i in range(2)
        ]
    for name in together:
        torch.testing.assert_close(
            together[name], torch.cat([a[name] for a in apart]), atol=float32_sum(500), rtol=0
        )


def test_images_without_regions():
    model = build_vit()
    x = torch.randn(2, 3, 32, 32)
    empty = [torch.zeros(0, 4), torch.zeros(0, 4)]
    assert model.encode_boxes(x, empty).shape == (0, 24)
    assert model.encode_boxes(x, empty, mode="attention").shape == (0, 24)
    assert model.encode_masks(x, [torch.zeros(0, 4, 4)] * 2).shape == (0, 24)


def test_bf16_stays_close_and_keeps_its_dtype(towers):
    for kind in ("vit", "eva", "resnet"):
        model = towers[kind]()
        x, boxes, masks = sample(model)
        with torch.no_grad():
            exact = model.encode_regions(
                x, boxes, masks, ("dense", "boxes", "masks", "boxes_attention")
            )
            rounded = model.to(torch.bfloat16).encode_regions(x, boxes, masks, tuple(exact))
        for name, value in rounded.items():
            assert value.dtype == torch.bfloat16
            dim = 1 if name == "dense" else -1
            assert torch.cosine_similarity(value.float(), exact[name], dim=dim).min() > 0.98


def test_antialias_option_changes_shrunk_positions_only_when_asked():
    plain, smooth = build_vit(), build_vit(antialias=True)
    small, native = torch.randn(1, 3, 16, 24), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain.encode_dense(native), smooth.encode_dense(native))
        assert (plain.encode_dense(small) - smooth.encode_dense(small)).abs().max() > 1e-4


def test_compile_of_encode_dense_gives_the_same_map():
    model = build_vit()
    x = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        compiled = torch.compile(model.encode_dense, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model.encode_dense(x), atol=1e-5, rtol=0)


def test_normalize_pixels():
    model = build_vit()
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (
        torch.tensor(model.image_mean).view(3, 1, 1),
        torch.tensor(model.image_std).view(3, 1, 1),
    )
    torch.testing.assert_close(model.normalize_pixels(pixels), (pixels / 255 - mean) / std)
    with pytest.raises(ValueError, match="uint8"):
        model.normalize_pixels(pixels.float())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.encode_dense(x[..., :30]), "does not divide into patches of 8 px.*32x32"),
        (lambda m, x: m.encode_dense(x[..., :4, :]), "smaller than one patch"),
        (
            lambda m, x: m.encode_dense(x, readout="residual"),
            "legal values are value_residual, value, sclip",
        ),
        (lambda m, x: m.encode_boxes(x, [torch.zeros(1, 4)]), "1 entries for 2 images"),
        (
            lambda m, x: m.encode_boxes(x, [torch.zeros(1, 4), torch.full((1, 4), 20.0)]),
            "divide pixel boxes",
        ),
        (lambda m, x: m.encode_boxes(x, [torch.zeros(1, 5)] * 2), "pass .n, 4. rows"),
        (
            lambda m, x: m.encode_boxes(x, [torch.zeros(0, 4)] * 2, mode="roi"),
            "legal values are 'align' and 'attention'",
        ),
        (
            lambda m, x: m.encode_masks(x, [torch.ones(1, 5, 5)] * 2),
            "feature map has 4x4 positions",
        ),
        (lambda m, x: m.encode_regions(x, outputs=("boxes",)), "needs boxes"),
        (lambda m, x: m.encode_regions(x, outputs=("crops",)), "output 'crops' is unknown"),
    ],
)
def test_mistakes_are_answered_with_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call(build_vit(), torch.zeros(2, 3, 32, 32))


def test_options_are_checked():
    clip = build_vit().clip
    with pytest.raises(ValueError, match="partial_patches='pad'"):
        RegionModel(clip, partial_patches="pad")
    with pytest.raises(ValueError, match="box_patches='all'"):
        RegionModel(clip, box_patches="all")
    with pytest.raises(ValueError, match="not an open_clip model"):
        RegionModel(torch.nn.Linear(2, 2))


def test_towers_without_attention_say_so(towers):
    for kind in ("timm_avg", "timm_convnext"):
        model = towers[kind]()
        x, boxes, _ = sample(model)
        with pytest.raises(ValueError, match="mode='align'"):
            model.encode_boxes(x, boxes, mode="attention")


def test_unsupported_tower_lists_the_supported_ones():
    from clim_models.towers import find_tower

    with pytest.raises(ValueError, match=r"(?s)Linear.*ModifiedResNet.*Eva"):
        find_tower(torch.nn.Linear(2, 2))


def test_embed_dim_and_direct_parameters(towers):
    for kind in ("vit", "eva", "resnet", "timm_siglip"):
        model = towers[kind]().train()
        assert model.embed_dim == model.encode_image(torch.zeros(1, 3, *model.image_size)).shape[1]
        assert model.training
        direct = model.direct_parameters()
        assert any(p is model.logit_scale for p in direct)
        assert len(model.direct_parameters(attention=True)) >= len(direct)

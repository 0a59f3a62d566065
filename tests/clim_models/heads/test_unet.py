import copy
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clim_models import UNetHead
from clim_models.checkpoints.layouts import to_unet_head
from device import DEVICE
from safetensors.torch import load_file
from torch import nn

GOLDEN = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parents[2] / "golden"))
CASES = sorted(path.stem for path in (GOLDEN / "flmm" / "unet").glob("case*.json"))


def head_of(golden, meta):
    config = golden("unet/unet_head", "flmm").meta["config"]
    head = UNetHead(
        config["in_channels"],
        base=config["base_channels"],
        stages=config["num_stages"],
        normalize_input=meta["normalize_input"],
        upsample_input=meta["upsample_input"],
    )
    head.load_state_dict(
        to_unet_head(load_file(GOLDEN / "flmm" / "unet" / "unet_head.safetensors"))
    )
    return head.to(DEVICE)


def maps(n=2, channels=6, h=9, w=7):
    return torch.rand(n, channels, h, w)


@pytest.mark.device
@pytest.mark.parametrize("name", CASES)
def test_golden_values_and_gradients(golden, name):
    case = golden(f"unet/{name}", "flmm")
    head = head_of(golden, case.meta)
    x = case.tensor("input").float().requires_grad_()
    expected, cotangent = case.tensor("output"), case.tensor("cotangent").float()
    logits = head(x)
    assert logits.shape == expected[:, 0].shape
    torch.testing.assert_close(logits, expected[:, 0], atol=1e-4, rtol=1e-4)
    (logits * cotangent[:, 0]).sum().backward()
    torch.testing.assert_close(
        x.grad.norm().item(), case.meta["input_grad_l2"], rtol=1e-4, atol=1e-4
    )
    if "input_grad" in case.arrays:
        wanted = case.tensor("input_grad")
        torch.testing.assert_close(x.grad, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    norms = {name: torch.tensor(norm) for name, norm in case.meta["param_grad_l2"].items()}
    wanted = to_unet_head(norms)
    got = {name: p.grad.norm().cpu() for name, p in head.named_parameters()}
    assert got.keys() == wanted.keys()
    for key, norm in wanted.items():
        torch.testing.assert_close(
            got[key], norm, rtol=1e-4, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_golden_cases_are_found():
    assert CASES, f"no unet/case*.json in {GOLDEN / 'flmm'}"


def test_golden_initial_weights(golden):
    stats = golden("unet/init_stats", "flmm").meta["stats"]
    base, in_channels = stats["encoder.0.0.convs.0.conv.weight"]["shape"][:2]
    stages = 1 + max(int(key.split(".")[1]) for key in stats if key.startswith("encoder."))
    head = UNetHead(in_channels, base=base, stages=stages)
    wanted = to_unet_head(stats)
    own = head.state_dict()
    assert own.keys() == wanted.keys()
    for key, expected in wanted.items():
        values = own[key]
        assert list(values.shape) == expected["shape"], key
        if expected["std"] == 0:
            assert (values == expected["mean"]).all(), key
            continue
        # Both are samples of one distribution: compare within five standard errors of a normal's
        # std and mean.
        std = (2 / (values.shape[0] * values[0, 0].numel())) ** 0.5
        for measured in (values.std().item(), expected["std"]):
            assert abs(measured - std) < 5 * std / (2 * values.numel()) ** 0.5, key
        assert abs(values.mean().item()) < 5 * std / values.numel() ** 0.5, key


def test_released_names_become_ours_and_ours_stay():
    head = UNetHead(4, base=2)
    ours = head.state_dict()
    assert to_unet_head(ours).keys() == ours.keys()
    assert to_unet_head({"encoder.2.1.convs.1.gn.bias": 0, "conv_seg.bias": 1}) == {
        "encoder.2.1.1.bias": 0,
        "predict.bias": 1,
    }


def test_released_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in UNetHead(channels).parameters()) for channels in (1024, 2048)
        ]
    assert counts[0] == 7_772_609
    assert counts[1] - counts[0] == 589_824


@pytest.mark.parametrize(
    ("h", "w", "edge", "expected"),
    [
        (24, 24, 64, (64, 64)),
        (49, 30, 64, (63, 39)),
        (48, 72, 64, (48, 72)),
        (5, 3, None, (5, 3)),
        (1, 1, 64, (64, 64)),
    ],
)
def test_output_sizes(h, w, edge, expected):
    assert UNetHead(3, base=1, upsample_input=edge)(maps(1, 3, h, w)).shape == (1, *expected)


def test_a_batch_is_its_phrases_one_by_one():
    head = UNetHead(6, base=4)
    x = maps(3)
    x[1] = 0  # a phrase whose maps were all zero
    torch.testing.assert_close(
        head(x), torch.cat([head(x[i : i + 1]) for i in range(3)]), atol=1e-5, rtol=1e-5
    )


def test_no_phrases_give_no_masks_and_still_a_gradient():
    head = UNetHead(6, base=4)
    logits = head(torch.zeros(0, 6, 9, 7))
    assert logits.shape == (0, 64, 49)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in head.parameters())


def test_scaling_a_map_changes_nothing_only_when_normalised():
    x = maps()
    scaled = torch.cat([x[:, :3], x[:, 3:] / 7], dim=1)
    head = UNetHead(6, base=4)
    torch.testing.assert_close(head(x), head(scaled), atol=1e-4, rtol=1e-4)
    head.normalize_input = False
    assert (head(x) - head(scaled)).abs().max() > 1e-2


def test_gradient_checkpointing_changes_no_number():
    plain = UNetHead(6, base=4)
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    calls = []
    saving.encoder[0].register_forward_pre_hook(lambda *_: calls.append(1))
    inputs, results = maps(), []
    for head in (plain, saving):
        x = inputs.clone().requires_grad_()
        logits = head(x)
        logits.square().mean().backward()
        results.append([logits.detach(), x.grad, *(p.grad for p in head.parameters())])
    assert len(calls) == 2  # forward, and once more in backward
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_weights_interpolate_in_float32(monkeypatch):
    head = UNetHead(6, base=4).bfloat16()
    dtypes = []
    interpolate = F.interpolate

    def watched(x, **options):
        dtypes.append(x.dtype)
        return interpolate(x, **options)

    monkeypatch.setattr(F, "interpolate", watched)
    x = maps()
    logits = head(x.bfloat16())
    assert logits.dtype is torch.bfloat16
    assert dtypes == [torch.float32] * 4
    exact = head.float()(x.bfloat16())
    assert nn.functional.cosine_similarity(logits.float().flatten(), exact.flatten(), dim=0) > 0.98


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(6, 8, 8), "pass \\(N, 6, h, w\\)"),
        (torch.zeros(1, 5, 8, 8), "pass \\(N, 6, h, w\\)"),
        (torch.zeros(1, 6, 0, 8), "pass \\(N, 6, h, w\\)"),
        (torch.full((1, 6, 8, 8), 1.5), "normalize_input=False"),
        (torch.full((1, 6, 8, 8), -0.1), "normalize_input=False"),
        (torch.full((1, 6, 8, 8), float("nan")), "attention is not finite"),
    ],
)
def test_wrong_input_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        UNetHead(6, base=2)(x)


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 0},
        {"in_channels": 4, "stages": 1},
        {"in_channels": 4, "base": 0},
        {"in_channels": 4, "upsample_input": 0},
    ],
)
def test_wrong_sizes_are_refused(options):
    with pytest.raises(ValueError, match="is not possible: pass"):
        UNetHead(**options)

"""Loading: every layout, and a clear answer to every kind of wrong file."""

import pickle
import warnings

import open_clip
import pytest
import torch
from clim_models import RegionModel, interpolate_weights, load_checkpoint, save_model
from clim_models.checkpoints.layouts import recognise, to_open_clip, unwrap
from safetensors.torch import save_file
from tiny_towers import build_clip, build_eva, build_resnet, build_vit, eva_config


def perturbed(model: RegionModel) -> RegionModel:
    with torch.no_grad():
        for p in model.clip.parameters():
            p.add_(1)
    return model


def same(a: RegionModel, b: RegionModel) -> bool:
    one, two = a.clip.state_dict(), b.clip.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", ["case01_eva_b", "case01_eva_l"])
@pytest.mark.parametrize("variant", ["plain", "module", "no_text_prefix", "pt", "release"])
def test_golden_eva_layouts_load_strictly(golden, tmp_path, name, variant):
    case = golden(name)
    state = case.under("sd/")
    target = perturbed(build_eva(case))
    if variant == "module":
        state = {f"module.{k}": v for k, v in state.items()}
    if variant == "no_text_prefix":
        state = {k.removeprefix("text."): v for k, v in state.items()}
    if variant in ("pt", "release"):
        path = tmp_path / "model.pt"
        torch.save(
            {"epoch": 6, "state_dict": {f"module.{k}": v for k, v in state.items()}}
            if variant == "release"
            else state,
            path,
        )
        state = path
    report = load_checkpoint(target, state)
    assert report.layout == "eva-clip"
    assert same(target, build_eva(case))


def test_golden_eva_renaming_covers_every_key(golden):
    case = golden("case01_eva_b")
    state = case.under("sd/")
    renamed = to_open_clip(state, text_prefix=True)
    assert len(renamed) == len([k for k in state if "rope" not in k])
    assert renamed.keys() == build_eva(case).clip.state_dict().keys()


def archive_of(tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A module tree whose state dict is `tensors`, so that it can be saved as OpenAI saved
    theirs."""

    class Node(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    children: dict[str, dict] = {}
    node = Node()
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = value
        else:
            node.register_buffer(head, value)
    for head, inside in children.items():
        node.add_module(head, archive_of(inside))
    return node


def test_openai_archive_is_read_and_needs_quickgelu(tmp_path):
    model = build_vit(quick_gelu=True)
    state = {k: v.detach() for k, v in model.clip.state_dict().items()}
    state |= {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(8),
        "vocab_size": torch.tensor(64),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(archive_of(state)).save(str(tmp_path / "archive.pt"))
    for source in (state, tmp_path / "archive.pt"):
        target = perturbed(build_vit(quick_gelu=True))
        assert load_checkpoint(target, source).layout == "openai"
        assert same(target, model)
        with pytest.raises(ValueError, match=r"need QuickGELU.*-quickgelu"):
            load_checkpoint(build_vit(quick_gelu=False), source)


def test_frozen_batch_norm_releases_load(golden):
    case = golden("case03_resnet")
    model = build_clip(case)
    state = {k: v for k, v in case.under("sd/").items() if not k.endswith("num_batches_tracked")}
    target = perturbed(build_clip(case))
    load_checkpoint(target, state)
    torch.testing.assert_close(target.logit_scale, model.logit_scale)


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_no_checkpoints_are_told_apart(tmp_path, capsys):
    model = build_vit()
    good = tmp_path / "good.pt"
    torch.save(model.clip.state_dict(), good)
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    save_file(
        {k: v.contiguous() for k, v in model.clip.state_dict().items()},
        tmp_path / "good.safetensors",
    )
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:-1000])
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Sign in</html>")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Malicious()}, protocol=2))
    torch.save({"epoch": 3, "name": "run"}, tmp_path / "empty.pt")
    for name in ("good.pt", "good.safetensors"):
        assert load_checkpoint(perturbed(build_vit()), tmp_path / name).tensors == len(
            model.clip.state_dict()
        )
    for name, message in (
        ("cut.pt", "truncated or damaged"),
        ("cut.safetensors", "truncated or damaged"),
        ("page.pt", r"is not a checkpoint .it starts with b'<!DOCTYPE html>"),
        ("evil.pt", "could run code"),
        ("empty.pt", "no weights in this file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(model, tmp_path / name)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="check the path"):
        load_checkpoint(model, tmp_path / "nothing.pt")


def test_wrong_models_list_the_differing_keys(golden):
    eva = build_eva(golden("case01_eva_b"))
    with pytest.raises(ValueError, match=r"(?s)another model.*missing: .*unexpected: "):
        load_checkpoint(build_vit(), build_resnet().clip.state_dict())
    with pytest.raises(ValueError, match=r"(?s)another model.*mis-shaped: .*for "):
        load_checkpoint(eva, golden("case01_eva_l").under("sd/"))
    with pytest.raises(ValueError, match="unknown layout"):
        load_checkpoint(eva, {f"backbone.{i}": torch.zeros(1) for i in range(9)})
    before = {k: v.clone() for k, v in eva.clip.state_dict().items()}
    state = {**golden("case01_eva_b").under("sd/"), "visual.extra": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"differs in places[\s\S]*unexpected: visual.trunk.extra"):
        load_checkpoint(perturbed(eva), state)
    assert before  # a refused file changes nothing
    assert all(
        torch.equal(eva.clip.state_dict()[k], v + 1)
        for k, v in before.items()
        if v.is_floating_point()
    )


def test_recognise_and_unwrap():
    assert recognise({"visual.pos_embed"}) == "eva-clip"
    assert recognise({"input_resolution", "visual.proj"}) == "openai"
    assert recognise({"visual.trunk.pos_embed"}) == "open_clip"
    assert unwrap({"model": {"module.a": torch.ones(1)}}).keys() == {"a"}
    assert unwrap({"clip.a": torch.ones(1)}).keys() == {"a"}


def test_export_loads_in_ours_and_in_plain_open_clip(golden, tmp_path):
    case = golden("case01_eva_b")
    model = build_eva(case)
    model.config, model.name = {**eva_config(case.meta), "custom_text": True}, "eva-golden"
    save_model(model, tmp_path / "run")
    target = perturbed(build_eva(case))
    load_checkpoint(target, tmp_path / "run")
    assert same(target, model)
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'run'}").eval()
    x = case.tensor("in/x")
    with torch.no_grad():
        torch.testing.assert_close(
            plain.encode_image(x), model.encode_image(x, normalize=False), atol=1e-5, rtol=0
        )
    assert not list((tmp_path / "run").glob(".*"))  # no half-written file stays


def test_export_needs_a_configuration(tmp_path):
    model = build_vit()
    model.config = None
    with pytest.raises(ValueError, match="model_cfg"):
        save_model(model, tmp_path)


def test_interpolation_is_linear_and_checked():
    a, b = build_vit().clip.state_dict(), perturbed(build_vit()).clip.state_dict()
    mixed = interpolate_weights(b, a, 0.25)
    for key, value in mixed.items():
        torch.testing.assert_close(value, b[key] * 0.25 + a[key] * 0.75)
    assert all(torch.equal(v, b[k]) for k, v in interpolate_weights(b, a, 1).items())
    frozen = {"w": torch.randn(1000)}  # 0.7 w + 0.3 w is another float than w here and there
    assert torch.equal(
        interpolate_weights(frozen, {"w": frozen["w"].clone()}, 0.7)["w"], frozen["w"]
    )
    with pytest.raises(ValueError, match=r"from 0 .teacher. to 1"):
        interpolate_weights(a, b, 1.5)
    with pytest.raises(ValueError, match="keys in one only"):
        interpolate_weights(a, {k: v for k, v in b.items() if k != "logit_scale"}, 0.5)


def test_golden_interpolation(golden):
    case = golden("case05_grid")
    entries = {
        k.removeprefix("in/ens/student/"): v
        for k, v in case.under("").items()
        if k.startswith("in/ens/student/")
    }
    alphas = {k.split("/")[2] for k in case.arrays if k.startswith("out/ens/alpha_")}
    assert alphas
    for alpha in alphas:
        teacher = {k: case.tensor(f"in/ens/teacher/{k}") for k in entries}
        mixed = interpolate_weights(entries, teacher, float(alpha.removeprefix("alpha_")))
        for key, value in mixed.items():
            if (
                value.is_floating_point()
            ):  # the original also mixes integer counters into floats; ours keeps them
                torch.testing.assert_close(value, case.tensor(f"out/ens/{alpha}/{key}"))
            else:
                assert torch.equal(value, entries[key])

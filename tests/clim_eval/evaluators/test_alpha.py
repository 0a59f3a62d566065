import json
import math

import pytest
import torch
from clim_eval.commands.main import main
from clim_eval.commands.sweep import sweep_figures, sweep_notes
from clim_eval.evaluators.alpha import (
    WeightPair,
    alpha_sweep,
    pareto_alphas,
    weights_of_checkpoints,
    weights_of_run,
)
from clim_eval.evaluators.cached import CachedItems
from clim_eval.evaluators.regions import RegionClassification
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.pictures.tradeoff import tradeoff_figure
from clim_eval.reports.report import read_report
from clim_models import create_model, interpolate_weights, save_model
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(golden):
    return golden("case07_panoptic").folder / "case07_data"


@pytest.fixture
def run(model_options, tmp_path):
    """A run folder as clim-train leaves it: one block trained, exported at alpha 0.25."""
    model = create_model(model_options[1], pretrained=model_options[3])
    names = [name for name in model.state_dict() if "resblocks.1." in name] + ["clip.logit_scale"]
    start = {name: model.state_dict()[name].clone() for name in names}
    torch.manual_seed(5)
    trained = {name: value + 0.3 * torch.randn_like(value) for name, value in start.items()}
    folder = tmp_path / "run"
    mixed = interpolate_weights(trained, start, 0.25)
    model.load_state_dict({**model.state_dict(), **mixed})
    save_model(model, folder / "model")
    save_file(start, folder / "start.safetensors", metadata={"frozen": "0"})
    save_file(trained, folder / "trained.safetensors")
    return folder


class Reading(torch.utils.data.Dataset):
    """Counts how often an item is read."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        self.reads += 1
        return self.data[i]


def toy_ends(model):
    start = {"weight": model.weight.detach().clone()}
    return WeightPair({"weight": start["weight"] + 0.5 * torch.randn_like(start["weight"])}, start)


def test_every_alpha_is_the_model_with_mixed_weights(toy):
    model, regions, captioned = toy.ToyModel(), Reading(toy.Regions(9)), toy.Captioned(7)
    ends = toy_ends(model)
    before = model.weight.detach().clone()
    loader = CachedItems(regions, batch_size=2)
    retrieval = ImageTextRetrieval(model, keep_texts=True)
    evaluators = {
        "regions": lambda: RegionClassification(model, toy.class_rows()).run(loader),
        "retrieval": lambda: retrieval.run(captioned),
    }
    told = []
    results = alpha_sweep(
        model, ends, [1, 0.3, 0, 0.3], evaluators, on_result=lambda alpha, _: told.append(alpha)
    )
    assert list(results) == told == [0.0, 0.3, 1.0]
    assert torch.equal(model.weight, before)
    assert regions.reads == len(regions)  # decoded once for all alphas
    for alpha, metrics in results.items():
        fresh = toy.ToyModel()
        with torch.no_grad():
            fresh.weight.copy_(
                alpha * ends.student["weight"] + (1 - alpha) * ends.teacher["weight"]
            )
        expected = {
            f"regions.{k}": v
            for k, v in RegionClassification(fresh, toy.class_rows()).run(regions).items()
        }
        expected |= {
            f"retrieval.{k}": v for k, v in ImageTextRetrieval(fresh).run(captioned).items()
        }
        assert metrics == pytest.approx(expected)
    assert len({tuple(metrics.values()) for metrics in results.values()}) == 3


def test_the_model_is_whole_again_after_a_fault(toy):
    model = toy.ToyModel()
    before = model.weight.detach().clone()

    def fails():
        assert not torch.equal(model.weight, before)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        alpha_sweep(model, toy_ends(model), [1], {"regions": fails})
    assert torch.equal(model.weight, before)


def test_pareto_alphas_by_hand():
    results = {
        0.0: {"a": 0.1, "b": 0.9},
        0.3: {"a": 0.4, "b": 0.9},  # beats 0
        0.5: {"a": 0.4, "b": 0.8},  # beaten by 0.3
        0.7: {"a": 0.6, "b": 0.5},
        0.9: {"a": 0.6, "b": 0.5},  # equal points do not beat each other
        1.0: {"a": 0.7, "b": math.nan},  # not measured
    }
    assert pareto_alphas(results, ["a", "b"]) == [0.3, 0.7, 0.9]
    assert pareto_alphas(results, ["a"]) == [1.0]


def test_mistakes_in_weights_are_told(toy, run, model_options, tmp_path):
    model = toy.ToyModel()
    ends = toy_ends(model)
    for alphas in ([], [0.5, 1.5], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="from 0"):
            alpha_sweep(model, ends, alphas, {})
    other = {"weight": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match="do not fit the model"):
        alpha_sweep(model, WeightPair(other, other), [1], {})
    with pytest.raises(ValueError, match="two state dicts differ"):
        alpha_sweep(model, WeightPair(ends.student, {"words": model.words.detach()}), [1], {})
    with pytest.raises(FileNotFoundError, match="--student"):
        weights_of_run(tmp_path)
    (run / "trained.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="damaged"):
        weights_of_run(run)
    (run / "trained.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"clim-train export {run}"):
        weights_of_run(run)
    with pytest.raises(ValueError, match="same weights"):
        weights_of_checkpoints(model_options[1], model_options[3], model_options[3])


def test_missing_measurements_are_said_and_drawn():
    both = {0.0: {"r": 0.2, "t": 0.8}, 1.0: {"r": 0.5, "t": math.nan}}
    mains = {"regions": "r", "retrieval": "t"}
    notes = sweep_notes(both, mains, [0.0])
    assert "zero-shot" in notes[1]
    assert "Best t: 0.8 at alpha 0." in notes[0]
    assert "alpha 1 has no t" in notes[0]
    (figure,) = sweep_figures(both, mains, [0.0], title="x").values()
    assert "not measured: 1" in figure.axes[0].get_xlabel()
    assert "beaten" in figure.axes[0].get_legend().get_texts()[0].get_text()
    (bars,) = sweep_figures({0.0: {"r": 0.2}}, {"regions": "r"}, [0.0], title="x").values()
    assert bars.axes[0].get_ylabel() == "%"
    with pytest.raises(ValueError, match="no point"):
        tradeoff_figure({"a": {"0": (math.nan, 1.0)}}, x_name="x", y_name="y")


def image_level_data(data, folder):
    """A captions file of the regions' images, and a folder of classes made of two of them."""
    images = json.loads((data / "panoptic.json").read_text())["images"][:4]
    captions = [
        {"id": i, "image_id": image["id"], "caption": f"scene {i}"}
        for i, image in enumerate(images)
    ]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    for label, image in enumerate(images):
        place = folder / "classes" / ("cat", "dog")[label % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.open(data / "images" / image["file_name"]).convert("RGB").save(place / f"{label}.png")
    options = [
        "--captions-json",
        str(folder / "captions.json"),
        "--class-images",
        str(folder / "classes"),
    ]
    return [*options, "--retrieval-images", str(data / "images")]


def test_alpha_of_a_run_is_its_export_and_of_one_two_checkpoints(
    run, model_options, data, tmp_path, capsys
):
    regions = [
        "--images",
        str(data / "images"),
        "--panoptic-json",
        str(data / "panoptic.json"),
        "--image-px",
        "64",
    ]
    regions += ["--outputs", "boxes", "--templates", "name", "--device", "cpu"]
    image_level = image_level_data(data, tmp_path)
    argv = [
        "alpha",
        str(run),
        "--alphas",
        "1",
        "0",
        "0.25",
        *regions,
        *image_level,
        "--out",
        str(tmp_path / "a"),
    ]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    report = read_report(tmp_path / "a")
    assert list(report["metrics"]) == ["alpha 0", "alpha 0.25", "alpha 1"]
    assert "alpha 0.25: regions.boxes.thing.mAcc1" in shown
    assert "no other one beats" in report["notes"][0]
    assert len(report["figures"]) == 2
    assert report["config"]["pareto"]
    assert set(report["data"]) == {"regions", "retrieval", "zeroshot"}

    # The exported alpha by the ordinary command; the start by the checkpoint that the training
    # began with.
    assert main(["regions", "--pretrained", str(run), *regions, "--out", str(tmp_path / "r")]) == 0
    exported = {
        f"regions.{name}": value for name, value in read_report(tmp_path / "r")["metrics"].items()
    }
    found = report["metrics"]["alpha 0.25"]
    assert {name: found[name] for name in exported} == pytest.approx(exported)

    argv = [
        "alpha",
        "--student",
        str(run),
        "--teacher",
        model_options[3],
        "--alphas",
        "0",
        "1",
        *regions,
    ]
    assert main([*argv, "--out", str(tmp_path / "c")]) == 0
    other = read_report(tmp_path / "c")
    assert any("Not measured: retrieval" in note for note in other["notes"])
    for alpha, metrics in (("alpha 0", report["metrics"]["alpha 0"]), ("alpha 1", found)):
        assert other["metrics"][alpha] == pytest.approx(
            {k: v for k, v in metrics.items() if k.startswith("regions")}
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--alphas", "0", "2"], "from 0"),
        (["--student", "x.pt", "--class-images", "x"], "pass RUN, or"),
        (["--captions-json", "none.json"], "--images"),
        ([], "nothing to evaluate"),
    ],
)
def test_alpha_mistakes_are_one_line(run, capsys, change, message):
    assert main(["alpha", str(run), "--device", "cpu", *change]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error

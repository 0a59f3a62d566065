"""Detic + CLIM: the published settings against the golden optimisers, and shrunk runs of all
recipes through the command line."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from clim_models.detection import c4_names, cascade_names, open_detector
from clim_train.commands.main import main
from clim_train.config import TrainConfig
from clim_train.engine.optim import norm_parameters, parameter_groups
from clim_train.methods.captioned_views import example_step
from clim_train.methods.detic import DeticConfig, build_detector
from clim_train.methods.method import BuildContext
from clim_train.options.sections import EngineConfig
from clim_train.recipes import RECIPES, find_recipe
from clim_train.run.metrics import read_metrics
from clim_train.schedule import learning_rate
from detic_training import small_detic_command, write_data
from golden_detic import FAMILY
from tiny_detic import tiny_classes
from tiny_training import VIT, register_tiny_towers

NAMES = [name for name in RECIPES if name.startswith("detic")]
GOLDEN = {
    "detic_coco_base": "ovcoco_base",
    "detic_coco_captions": "ovcoco_w_tags",
    "detic_coco_tags": "ovcoco_w_tags",
    "detic_lvis_base": "ovlvis_boxsup",
    "detic_lvis_captions": "ovlvis_clim",
    "detic_lvis_clim": "ovlvis_clim",
}


@pytest.mark.parametrize("name", NAMES)
def test_golden_rates(golden, name):
    case, config, key = golden("case13_optim", FAMILY), find_recipe(name)(), GOLDEN[name]
    about = case.meta["config"][key]
    assert config.schedule.steps == about["max_iters"]
    if "base_lr" in about:
        assert config.optim.lr == about["base_lr"]
    steps = case.arrays[f"out/{key}/iteration"].tolist()
    for step, rate in zip(steps, case.arrays[f"out/{key}/lr"].tolist(), strict=True):
        found = learning_rate(step, config.schedule.steps, config.optim, config.schedule)
        assert found == pytest.approx(rate, rel=1e-5, abs=1e-12), step


@pytest.mark.parametrize("name", NAMES)
def test_golden_groups_of_parameters(golden, name):
    """The same parameters train, and decay alike; the golden model has more blocks."""
    groups = golden("case13_optim", FAMILY).meta["data"]["groups"]
    is_coco = "coco" in name
    about = groups.get(GOLDEN[name]) or groups["ovlvis_clim"]
    rows = {key: torch.tensor(row) for key, row in about.items()}
    renamed = (c4_names if is_coco else cascade_names)(rows)

    config = find_recipe(name)()
    small = replace(config.task, blocks=(1, 1, 1, 1), width=4, channels=8)
    context = BuildContext(engine=EngineConfig(), data=config.data, device=torch.device("cpu"))
    detector = build_detector(small, tiny_classes(), context)
    trained = {key: p for key, p in detector.named_parameters() if p.requires_grad}
    norms = norm_parameters(detector)
    optim = config.optim
    found = parameter_groups(
        trained, weight_decay=optim.weight_decay, decay=optim.decay, norms=norms
    )
    decay = {id(p): group["weight_decay"] for group in found for p in group["params"]}

    expected = {
        key: row.flatten()[:2].tolist()
        for key, row in renamed.items()
        if row.flatten()[2] and not re.search(r"layer\d\.[1-9]", key)
    }
    if not config.data.tags:
        del expected["image_level.tags.bias"]
    assert expected.keys() == trained.keys()
    for key, parameter in trained.items():
        rates = [optim.lr, decay[id(parameter)]]
        assert rates == pytest.approx(expected[key], rel=1e-5), key


def test_published_numbers_of_a_step():
    for name in NAMES:
        config = find_recipe(name)()
        data = config.data
        step = [data.batch_size * count for count in (1, data.pictures, data.mosaics)]
        expected = {
            "detic_coco_base": [2, 0, 0],
            "detic_coco_captions": [2, 2, 2],
            "detic_coco_tags": [2, 2, 2],
            "detic_lvis_base": [8, 0, 0],
            "detic_lvis_captions": [8, 32, 0],
            "detic_lvis_clim": [8, 16, 16],
        }
        assert step == expected[name]
        assert RECIPES[name].facts.gpus == 8
        assert data.image_px == (800 if "coco" in name else 640)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("detic"))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains_two_steps_and_its_detector_opens(name, data, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(small_detic_command(name, data, folder)) == 0, capsys.readouterr().err
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2]
    config = TrainConfig.load(folder)
    wanted = {"loss"}
    for part, count in (("captions", config.data.pictures), ("mosaics", config.data.mosaics)):
        stages = [""] if "coco" in name else ["0.", "1.", "2."]
        kinds = ["loss_caption"] + ["loss_tags"] * config.data.tags
        wanted |= {f"{part}.{stage}{kind}" for stage in stages for kind in kinds if count}
    assert wanted <= lines[0].keys()
    parts = [value for key, value in lines[1].items() if "loss_" in key]
    assert lines[1]["loss"] == pytest.approx(sum(parts), rel=1e-4)

    detector = open_detector(folder)
    assert detector.names == ("cat", "red ball", "cow")
    assert detector.classes.base == (0, 1)
    picture = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8)
    (found,) = detector.detect([picture])
    assert (found.masks is not None) == ("lvis" in name)
    assert detector.text is not None


def test_a_run_goes_on_where_it_was_and_remembers_captions(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ("--run.save-every=2", "--optim.lr=1e-4")
    assert main(small_detic_command("detic_lvis_clim", data, whole, *more, steps=4)) == 0
    assert main(small_detic_command("detic_lvis_clim", data, parts, *more, steps=4)) == 0
    # As if killed after the checkpoint of step 2.
    newest = sorted((parts / "checkpoints").iterdir())[-1]
    assert newest.name == "step-00000004"
    for path in sorted(newest.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    newest.rmdir()
    assert main(["resume", str(parts)]) == 0
    own = [line["loss"] for line in read_metrics(whole)]
    again = [line["loss"] for line in read_metrics(parts)]
    assert again == pytest.approx(own, rel=1e-6)


def test_an_export_takes_the_classes_of_its_run(data, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(small_detic_command("detic_coco_base", data, folder)) == 0
    shutil.rmtree(folder / "model")
    assert main(["export", str(folder)]) == 0
    detector = open_detector(folder)
    assert (detector.names, detector.classes.base) == (("cat", "red ball", "cow"), (0, 1))

    classes = folder / "classes.json"
    classes.write_text('{"names": ["cat"]}')
    assert main(["export", str(folder)]) == 2
    assert "classes.json is damaged" in capsys.readouterr().err
    classes.unlink()
    assert main(["export", str(folder)]) == 2
    assert "is missing: put back a copy" in capsys.readouterr().err


def test_a_run_on_captions_starts_from_one_on_boxes(data, tmp_path, capsys):
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    assert main(small_detic_command("detic_coco_base", data, base)) == 0
    more = ("--task.backbone=None", f"--task.start={base}", "--optim.lr=0")
    assert main(small_detic_command("detic_coco_tags", data, tuned, *more)) == 0
    before, after = open_detector(base), open_detector(tuned)
    assert torch.equal(
        before.box_head.layer4[0].conv1.weight, after.box_head.layer4[0].conv1.weight
    )
    assert after.image_level is not None

    assert (
        main(small_detic_command("detic_coco_tags", data, tmp_path / "no", "--task.backbone=None"))
        == 2
    )
    assert "nothing to start from" in capsys.readouterr().err
    assert (
        main(small_detic_command("detic_coco_tags", data, tmp_path / "no", "--data.captions=None"))
        == 2
    )
    assert "clim-data tags" in capsys.readouterr().err
    more = ("--engine.precision=bf16",)
    assert main(small_detic_command("detic_coco_base", data, tmp_path / "no", *more)) == 2
    assert "use 'amp_bf16'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["detic_coco_tags", "detic_lvis_clim"])
def test_a_step_can_be_estimated(name, capsys):
    register_tiny_towers()
    sizes = ["--task.blocks", "1", "1", "1", "1", "--task.width=4", "--data.image-px=64"]
    sizes += ["--model.pretrained=None", f"--model.name={VIT}", "--data.batch-size=1"]
    if "lvis" in name:
        sizes += ["--task.channels=8", "--data.pictures=1", "--data.mosaics=1"]
    assert main(["estimate", name, *sizes, "--gpus=2"]) == 0
    assert "checkpoints not counted" in capsys.readouterr().out

    config = find_recipe(name)()
    more = [replace(config.data, pictures=count, mosaics=0) for count in (1, 2)]
    shapes = [example_step(replace(data, image_px=100), 16) for data in more]
    assert [len(batch.captions) for batch in shapes] == [
        data.batch_size * n for n, data in enumerate(more, 1)
    ]
    assert shapes[0].captions.images.shape[2:] == ((96, 64) if "coco" in name else (64, 64))


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not both"):
        DeticConfig(start="a", backbone="b")
    with pytest.raises(ValueError, match=r"data\.masks"):
        find_recipe("detic_lvis_base")().__class__(
            data=find_recipe("detic_lvis_base")().data, task=DeticConfig(detector="ov-coco")
        )

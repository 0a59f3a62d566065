"""`flmm train`: recipes, their options, and a whole run from shards and folders to a file of heads, and resumed."""

import json
import shutil

import pytest
from clim_data import expression_items, narrative_items, write_shards
from clim_train.config import OptimConfig, ScheduleConfig
from clim_train.schedule import learning_rate
from conftest import GOLDEN
from flmm.cli import main
from flmm.grounding_config import GroundingConfig
from flmm.recipes import RECIPES
from flmm.train_command import configure
from safetensors.torch import load_file
from tiny_grounding import tiny_sam
from tiny_lmms import FAMILIES

DATA = GOLDEN / "flmm" / "data"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of a tiny LLaVA, a tiny SAM, and shards of narratives and of expressions."""
    folder = tmp_path_factory.mktemp("grounding")
    shutil.copytree(GOLDEN / "flmm" / "llava" / "hf", folder / "lmm")
    for file in (DATA / "tokenizer_llava").iterdir():
        shutil.copyfile(file, folder / "lmm" / file.name)
    side = json.loads((folder / "lmm" / "config.json").read_text())["vision_config"]["image_size"]
    FAMILIES["llava"]()[1].__class__(size={"shortest_edge": side}).save_pretrained(folder / "lmm")
    tiny_sam().save_pretrained(folder / "sam")
    narratives = narrative_items(DATA / "images", DATA / "png.json", DATA / "panoptic.json", DATA / "panoptic")
    write_shards(narratives, folder / "png")
    refs = next((DATA / "refcoco").glob("refs*.json"))
    for_training = expression_items(DATA / "images", refs, DATA / "refcoco" / "instances.json", split="train")
    write_shards(for_training, folder / "refcoco")
    return folder


def command(places, run, *more) -> list[str]:
    return [
        "train",
        "flmm_llava_1_5_vicuna_7b",
        f"--model.lmm={places / 'lmm'}",
        f"--model.sam={places / 'sam'}",
        "--data.narratives",
        str(places / "png"),
        "--data.expressions",
        str(places / "refcoco"),
        "--data.batch-size=1",
        "--data.workers=0",
        "--engine.device=cpu",
        f"--run.folder={run}",
        "--run.log-every=1",
        "--run.no-bar",
        "--run.no-tensorboard",
        *more,
    ]


def test_a_run_from_shards_to_heads_and_further(places, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--schedule.steps=1", f"--cache.folder={tmp_path / 'cache'}")
    assert main(command(places, run, *options)) == 0, capsys.readouterr().err
    assert "1 steps, last loss" in capsys.readouterr().out
    about = json.loads((run / "model" / "grounding.json").read_text())
    assert about == {"lmm": str(places / "lmm"), "sam": str(places / "sam"), "merge": "mean"}
    heads = load_file(run / "model" / "heads.safetensors")
    assert not any(name.startswith(("lmm.", "sam.image_encoder")) for name in heads)
    config = json.loads((run / "config.json").read_text())
    assert GroundingConfig.load(run) == GroundingConfig.from_json(json.dumps(config))
    config["schedule"]["steps"] = 2
    (run / "config.json").write_text(json.dumps(config))
    assert main(["train", "resume", str(run)]) == 0, capsys.readouterr().err
    assert "2 steps, last loss" in capsys.readouterr().out


def test_recipes_are_those_of_the_paper():
    assert len(RECIPES) == 5
    for name, entry in RECIPES.items():
        config = entry()
        for word in ("Paper:", "Command:", "Hardware:", "Data:", "Expected:", "Differs from the original:", name):
            assert word in entry.__doc__
        assert GroundingConfig.from_json(config.to_json()) == config
        assert (config.schedule.epochs, config.data.batch_size, entry.facts.gpus) == (8, 1, 8)
        assert config.optim == OptimConfig(1e-4, (0.9, 0.999), 1e-8, 0.01, "all", 1.0)


def test_rate_warms_up_from_almost_nothing_over_three_percent():
    config = RECIPES["flmm_llava_1_5_vicuna_7b"]()
    total = 10_000
    rates = [learning_rate(step, total, config.optim, config.schedule) for step in (0, 299, 300, 5150, 9999)]
    assert rates == pytest.approx([1e-9, 1e-4, 1e-4, 0.5e-4, 0], abs=1e-9)
    assert learning_rate(0, total, OptimConfig(lr=1.0), ScheduleConfig(warmup_steps=4)) == 0.25


def test_commands_that_only_print(capsys):
    assert main(["train", "list"]) == main(["train", "show", "flmm_deepseek_vl_7b"]) == main(["train"]) == 0
    text = capsys.readouterr().out
    assert "deepseek-community/deepseek-vl-1.3b-chat" in text
    assert '"warmup_share": 0.03' in text
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert configure("flmm_deepseek_vl_7b", ["--optim.lr", "3e-4"]).optim.lr == 3e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "there is no command 'no-such-command': use one of ground"),
        (["train", "flmm_lava"], "there is no recipe 'flmm_lava': did you mean 'flmm_llava"),
        (["train", "resume"], "use `flmm train resume RUN`"),
        (["train", "flmm_deepseek_vl_7b", "--engine.device=cpu"], "no training data: name folders of shards"),
    ],
)
def test_mistakes_are_explained(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--engine.precision=bf16", "--cache.max-gb=1", "--model.merge=sum", "--data.redraw", "--model.lmm="],
)
def test_impossible_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "flmm_deepseek_vl_7b", option])
    assert ended.value.code == 2
    assert "is not possible: use" in " ".join(capsys.readouterr().err.split())

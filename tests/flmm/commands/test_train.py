"""`flmm train`: recipes, their options, and a whole run from shards and folders to a file of heads,
and resumed."""

import json
import os
import re
import shlex
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from clim_data import expression_items, narrative_items, write_shards
from clim_data.streams import global_steps
from clim_train import OptimConfig, ScheduleConfig, Trainer, learning_rate, read_metrics
from clim_train.run import checksums, write_manifest
from conftest import GOLDEN
from flmm.commands.main import main
from flmm.commands.train import configure
from flmm.heads.facts import read_facts
from flmm.training.config import GroundingConfig
from flmm.training.recipes import RECIPES
from safetensors.torch import load_file
from tiny_grounding import tiny_config, tiny_sam, tiny_trainer
from tiny_lmms import FAMILIES

DATA = GOLDEN / "flmm" / "data"
# Each published training, and the tiny LMM of its kind.
TINY = {
    "flmm_llava_1_5_vicuna_7b": "llava",
    "flmm_llava_next_vicuna_7b": "llava_next_vicuna",
    "flmm_llava_next_mistral_7b": "llava_next_mistral",
    "flmm_deepseek_vl_1_3b": "deepseek_vl",
    "flmm_deepseek_vl_7b": "deepseek_vl_hybrid",
    "flmm_mgm_gemma_2b": "mgm_gemma",
    "flmm_mgm_vicuna_7b": "mgm",
    "flmm_mgm_vicuna_7b_hd": "mgm_hd",
    "flmm_hpt_air": "hpt",
    "flmm_hpt_air_1_5": "hpt15",
}


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
    narratives = narrative_items(
        DATA / "images", DATA / "png.json", DATA / "panoptic.json", DATA / "panoptic"
    )
    write_shards(narratives, folder / "png")
    refs = next((DATA / "refcoco").glob("refs*.json"))
    for_training = expression_items(
        DATA / "images", refs, DATA / "refcoco" / "instances.json", split="train"
    )
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
    # At stage 0 nothing is shared out, and any number of processes reads a checkpoint.
    options = (
        "--schedule.steps=1",
        "--engine.zero-stage=2",
        f"--cache.folder={tmp_path / 'cache'}",
    )
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
    check_other_processes(run, capsys)
    check_untrusted_data(run, tmp_path / "proof", capsys)


def test_steps_are_measured_and_nothing_is_written(places, tmp_path, capsys):
    run, cache = tmp_path / "run", tmp_path / "cache"
    recipe = command(places, run, "--schedule.epochs=4", f"--cache.folder={cache}")[1:]
    assert main(["train", "estimate", *recipe, "--gpus=2", "--steps=2"]) == 0, (
        capsys.readouterr().err
    )
    text = capsys.readouterr().out
    samples = int(re.search(r"(\d+) samples per epoch on 2 such devices", text)[1])
    steps = 4 * len(global_steps(samples, 2, 2))
    assert f" {steps:,} steps, " in text
    assert re.search(r"\d s per step, .* waiting for data", text)
    assert re.search(r"memory: \d+\.\d GB at most", text)
    assert not run.exists()
    assert not cache.exists()

    assert main(["train", "estimate", *recipe, "--gpus=0"]) == 2
    assert "use at least 1" in capsys.readouterr().err


def check_other_processes(run, capsys):
    """As if two processes had written the newest checkpoint: the command that the message names
    converts it."""
    state = max((run / "checkpoints").glob("step-*/trainer.json"))
    state.write_text(json.dumps({**json.loads(state.read_text()), "world_size": 2}))
    write_manifest(state.parent, checksums(state.parent))
    expected = load_file(run / "model" / "heads.safetensors")
    shutil.rmtree(run / "model")
    assert main(["train", "export", str(run)]) == 2
    said = capsys.readouterr().err
    (named,) = re.findall(r"was written by 2 processes, this run has 1: run `flmm (.*)` once", said)
    assert main(shlex.split(named)) == 0
    assert main(["train", "export", str(run)]) == 0, capsys.readouterr().err
    found = load_file(run / "model" / "heads.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def check_untrusted_data(run, proof, capsys):
    config = json.loads((run / "config.json").read_text())
    config["data"]["narratives"] = [f"pipe:touch {proof}"]
    (run / "config.json").write_text(json.dumps(config))
    for one in ("resume", "export"):
        assert main(["train", one, str(run)]) == 2
        assert "may run a command: look at it" in capsys.readouterr().err
    assert not proof.exists()


def test_a_stopped_run_is_exported_and_continued_by_the_commands_it_names(
    places, tmp_path, capsys, monkeypatch
):
    run, weights = tmp_path / "run", {}
    log = Trainer.log

    def log_and_ask_to_stop(trainer):
        log(trainer)
        weights.update(
            {k: v.detach().clone() for k, v in trainer.task.trainable_parameters().items()}
        )
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "log", log_and_ask_to_stop)
    assert (
        main(
            command(places, run, "--schedule.steps=3", "--engine.zero-stage=0", "--model.merge=max")
        )
        == 75
    )
    monkeypatch.undo()
    (named,) = re.findall(
        r"flmm: stopped at step 2, checkpoint saved: `flmm (.*)` continues", capsys.readouterr().err
    )
    assert main(command(places, run)) == 2
    assert f"already holds a run: `flmm {named}` continues it" in capsys.readouterr().err
    assert main(["train", "export", str(run)]) == 0, capsys.readouterr().err
    heads = load_file(run / "model" / "heads.safetensors")
    assert heads.keys() == weights.keys()
    assert all(torch.equal(heads[name], value) for name, value in weights.items())
    assert read_facts(run / "model" / "heads.safetensors")["merge"] == "max"
    assert main(shlex.split(named)) == 0, capsys.readouterr().err
    assert "3 steps, last loss" in capsys.readouterr().out
    trained = load_file(run / "model" / "heads.safetensors")
    assert not all(torch.equal(heads[name], trained[name]) for name in heads)


def test_recipes_are_those_of_the_paper():
    assert RECIPES.keys() == TINY.keys()
    for name, entry in RECIPES.items():
        config = entry()
        for word in (
            "Paper:",
            "Command:",
            "Hardware:",
            "Data:",
            "Expected:",
            "Differs from the original:",
            name,
        ):
            assert word in entry.function.__doc__
        assert GroundingConfig.from_json(config.to_json()) == config
        assert (config.schedule.epochs, config.data.batch_size, entry.facts.gpus) == (8, 1, 8)
        assert config.optim == OptimConfig(
            lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, decay="all", clip_norm=1.0
        )


@pytest.mark.parametrize("name", TINY)
def test_every_recipe_builds_a_tiny_model_and_trains_two_steps(tmp_path, name):
    recipe = RECIPES[name]()
    tiny = tiny_config(tmp_path / "run", steps=2)
    config = replace(
        recipe,
        data=replace(recipe.data, workers=0),
        schedule=replace(recipe.schedule, steps=2),
        engine=replace(recipe.engine, device="cpu"),
        run=tiny.run,
    )
    trainer = tiny_trainer(config, family=TINY[name])
    before = trainer.task.model.text_layer_weights.clone()
    trainer.fit()
    found = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert len(found) == 2
    assert all(0 < loss < 20 for loss in found)
    assert not torch.equal(trainer.task.model.text_layer_weights, before)


def test_rate_warms_up_from_almost_nothing_over_three_percent():
    config = RECIPES["flmm_llava_1_5_vicuna_7b"]()
    total = 10_000
    rates = [
        learning_rate(step, total, config.optim, config.schedule)
        for step in (0, 299, 300, 5150, 9999)
    ]
    assert rates == pytest.approx([1e-9, 1e-4, 1e-4, 0.5e-4, 0], abs=1e-9)
    assert learning_rate(0, total, OptimConfig(lr=1.0), ScheduleConfig(warmup_steps=4)) == 0.25


def test_commands_that_only_print(capsys):
    assert main(["train", "list"]) == main(["train", "show", "flmm_deepseek_vl_7b"]) == 0
    assert main(["train"]) == 2
    text = capsys.readouterr().out
    assert "deepseek-community/deepseek-vl-1.3b-chat" in text
    assert '"warmup_share": 0.03' in text
    for arguments, status in ((["--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == status
    assert configure("flmm_deepseek_vl_7b", ["--optim.lr", "3e-4"]).optim.lr == 3e-4


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["no-such-command"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "'no-such-command'" in message
    assert "'ground'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "flmm_lava_1_5"],
            "there is no recipe 'flmm_lava_1_5': did you mean 'flmm_llava",
        ),
        (["train", "resume"], "use `flmm train resume RUN`"),
        (["train", "export", "a", "b"], "use `flmm train export RUN`"),
        (["train", "export", "nowhere"], "nowhere has no complete checkpoint"),
        (["train", "convert", "nowhere"], "nowhere has no complete checkpoint"),
        (["train", "resume", "nowhere"], "give the folder of a run"),
        (
            ["train", "flmm_deepseek_vl_7b", "--engine.device=cpu"],
            "no training data: name folders of shards",
        ),
    ],
)
def test_mistakes_are_explained(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        "--engine.precision=bf16",
        "--cache.max-gb=1",
        "--model.merge=sum",
        "--data.redraw",
        "--model.lmm=",
    ],
)
def test_impossible_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "flmm_deepseek_vl_7b", option])
    assert ended.value.code == 2
    assert "is not possible: use" in " ".join(capsys.readouterr().err.split())

"""Every recipe builds and trains two steps on a tiny tower and real shards, through the command line."""

import pytest
import torch
from clim_train.build import build_evaluators, gradient_path
from clim_train.cli import configure, main
from clim_train.config import TrainConfig
from clim_train.metrics import read_metrics
from clim_train.recipes import RECIPES, find_recipe, recipe_table
from safetensors.torch import load_file
from tiny_training import small_command, tiny_model


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_two_steps(name, shards, tmp_path):
    folder = tmp_path / "run"
    assert main(small_command(name, shards, folder)) == 0
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 20 for line in lines)
    config = TrainConfig.load(folder)
    assert config.optim == find_recipe(name)().optim
    trained, start = load_file(folder / "model" / "model.safetensors"), load_file(folder / "start.safetensors")
    assert any(not torch.equal(value, trained[key.removeprefix("clip.")]) for key, value in start.items())


PAPER = ["clim_coco_vitb16", "clim_cc3m_vitb16", "clim_lvis_vitb16"]


@pytest.mark.parametrize("name", PAPER)
def test_paper_recipes_have_the_published_settings(name):
    config = find_recipe(name)()
    assert (config.model.name, config.model.pretrained, config.model.unlocked_blocks) == (
        "ViT-B-16-quickgelu",
        "openai",
        6,
    )
    assert (config.optim.lr, config.optim.weight_decay, config.optim.betas, config.optim.eps) == (
        1e-5,
        0.1,
        (0.9, 0.98),
        1e-6,
    )
    assert (config.schedule.kind, config.schedule.warmup_steps) == ("cosine", 1000)
    assert config.schedule.epochs == (3 if "cc3m" in name else 100)
    assert (config.data.batch_size, config.data.mosaic.canvas_px, config.run.alpha) == (32, 1024, 0.7)
    assert config.data.mosaic.crop_scale == (0.9, 1.0)
    assert not config.task.mask_duplicate_captions
    assert config.optim.clip_norm is None


def test_eva_recipe_uses_the_betas_of_eva():
    config = find_recipe("clim_coco_evab16")()
    assert (config.optim.betas, config.optim.eps, config.model.unlocked_blocks) == ((0.9, 0.999), 1e-8, 12)


@pytest.mark.parametrize("name", RECIPES)
def test_docstrings_say_what_a_user_needs(name):
    text = RECIPES[name].__doc__
    for part in ("Paper:", "Command:", "Hardware:", "Data:", "Expected:", "Differs from the original:"):
        assert part in text
    assert name in text
    assert name in recipe_table()


def test_gradient_path_follows_the_batches():
    def path(*options):
        return gradient_path(configure("clim_coco_vitb16", options))

    assert path("--data.batch-size=32") == "all"  # 29 tiles and 3 single images
    assert path("--data.batch-size=29") == "dense"
    assert path("--data.batch-size=29", "--task.box-mode=attention") == "attention"
    assert path("--data.batch-size=3") == "image"


def test_no_evaluation_without_files():
    assert build_evaluators(TrainConfig(), tiny_model()) == {}

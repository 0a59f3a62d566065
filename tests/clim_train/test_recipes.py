"""Every recipe builds and trains two steps on a tiny tower and real shards, through the command
line; those of Detic train their own ResNet, in their own test."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from clim_train.build import build_evaluators, gradient_path
from clim_train.commands.main import configure, main
from clim_train.config import TrainConfig
from clim_train.recipes import RECIPES, find_recipe, recipe_table
from clim_train.run.metrics import read_metrics
from detector_training import few_boxes
from PIL import Image
from safetensors.torch import load_file
from tiny_training import EVA, register_tiny_towers, small_command, tiny_model

REGIONS = [name for name in RECIPES if not name.startswith("clim_")]
DETECTORS = [name for name in REGIONS if name.startswith(("fvit", "fvlm"))]


@pytest.fixture(scope="module")
def boxed_folder(tmp_path_factory):
    """A folder of images of noise, and a json with two boxes and masks in each, as of LVIS."""
    folder = tmp_path_factory.mktemp("boxed")
    (folder / "images").mkdir()
    noise = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(8):
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
            folder / "images" / f"{i}.png"
        )
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 48})
        for k, (x, y) in enumerate([(2, 3), (20, 10)]):
            box = {
                "id": 2 * i + k,
                "image_id": i,
                "category_id": 1 + (i + k) % 2,
                "bbox": [x, y, 18, 16],
            }
            corners = [x, y, x + 18, y, x + 18, y + 16, x, y + 16]
            boxes.append({**box, "area": 18 * 16, "iscrowd": 0, "segmentation": [corners]})
    categories = [
        {"id": 1, "name": "cat", "frequency": "f"},
        {"id": 2, "name": "red ball", "frequency": "c"},
    ]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


def region_command(name, data, folder) -> list[str]:
    """Two steps of a recipe for regions or detectors on a tiny tower and a folder of images."""
    options = ["--model.pretrained=None", f"--model.name={EVA}", f"--data.images={data / 'images'}"]
    options += ["--data.image-px=48", "--data.batch-size=4", "--data.workers=0"]
    if name.startswith("regionclip") or name in DETECTORS or "proposals" in name:
        options.append(f"--data.boxes={data / 'boxes.json'}")
        if name in DETECTORS:
            options += ["--task.blocks", "0", "0", "1", "1", "--data.batch-size=2"]
    elif "json" in RECIPES[name].function.__doc__:
        options.append(f"--data.images-json={data / 'boxes.json'}")
    run = [
        "--schedule.steps=2",
        f"--schedule.warmup-steps={100 if name in DETECTORS else 1}",
        "--engine.device=cpu",
        f"--run.folder={folder}",
    ]
    return [name, *options, *run, "--run.log-every=1", "--run.no-bar", "--run.no-tensorboard"]


@pytest.fixture
def _few_boxes(monkeypatch):
    few_boxes(monkeypatch.setattr)


@pytest.mark.usefixtures("_few_boxes")
@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("detic_")])
def test_recipe_trains_two_steps(name, shards, boxed_folder, tmp_path):
    folder = tmp_path / "run"
    command = (
        region_command(name, boxed_folder, folder)
        if name in REGIONS
        else small_command(name, shards, folder)
    )
    register_tiny_towers()
    assert main(command) == 0
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 20 for line in lines)
    config = TrainConfig.load(folder)
    assert config.optim == find_recipe(name)().optim
    trained, start = (
        load_file(folder / "model" / "model.safetensors"),
        load_file(folder / "start.safetensors"),
    )
    assert any(
        not torch.equal(value, trained[key.removeprefix("clip.")]) for key, value in start.items()
    )


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
    assert (config.data.batch_size, config.data.mosaic.canvas_px, config.run.alpha) == (
        32,
        1024,
        0.7,
    )
    assert config.data.mosaic.crop_scale == (0.9, 1.0)
    assert not config.task.mask_duplicate_captions
    assert config.optim.clip_norm is None


@pytest.mark.parametrize("name", [n for n in REGIONS if n.startswith(("clipself", "regionclip"))])
def test_region_recipes_have_the_published_settings(name):
    entry = find_recipe(name)
    config = entry()
    large = "eval14" in name
    assert config.model.name == ("EVA02-L-14-336" if large else "EVA02-B-16")
    assert (config.model.unlocked_blocks, config.run.alpha) == ((24, 0.95) if large else (12, 0.7))
    assert (config.data.image_px, config.data.batch_size, entry.facts.gpus) == (
        896 if large else 1024,
        2,
        8,
    )
    assert (config.schedule.epochs, config.schedule.warmup_steps, config.schedule.kind) == (
        6,
        1000,
        "cosine",
    )
    assert (config.optim.lr, config.optim.weight_decay, config.optim.clip_norm) == (1e-5, 0.1, None)
    assert (config.optim.betas, config.optim.eps) == ((0.9, 0.999), 1e-8)
    assert entry.facts.images == (100_170 if "lvis" in name else 118_287)
    if name.startswith("clipself"):
        assert (config.data.max_split, config.data.max_cells, config.data.context) == (6, 20, 1.5)
        # Without a file of boxes the images would be cut into grids, which is another recipe.
        assert (config.data.boxes is None) == ("patches" in name)
        assert (config.data.min_box_px, config.data.max_box_px, config.data.scales) == (8, 1024, ())
    else:
        assert config.task.sampled_classes == 100


@pytest.mark.parametrize("name", ["clipself_coco_patches_evab16", "clipself_lvis_patches_evab16"])
def test_steps_of_the_one_process_run_are_those_of_eight_gpus(name):
    entry = find_recipe(name)
    steps = (
        -(-entry.facts.images // (entry.facts.gpus * entry().data.batch_size))
        * entry().schedule.epochs
    )
    assert f"--schedule.steps {steps}" in " ".join(entry.function.__doc__.split())


def test_eva_recipe_uses_the_betas_of_eva():
    config = find_recipe("clim_coco_evab16")()
    assert (config.optim.betas, config.optim.eps, config.model.unlocked_blocks) == (
        (0.9, 0.999),
        1e-8,
        12,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_docstrings_say_what_a_user_needs(name):
    text = RECIPES[name].function.__doc__
    for part in (
        "Paper:",
        "Command:",
        "Hardware:",
        "Data:",
        "Expected:",
        "Differs from the original:",
    ):
        assert part in text
    assert name in text
    assert name in recipe_table()


@pytest.mark.parametrize("name", RECIPES)
def test_commands_of_docstrings_parse(name):
    text = RECIPES[name].function.__doc__
    command = re.search(r"Command: (.*?)(?: \(`|\n *Hardware:)", text, re.DOTALL).group(1)
    program, *words = shlex.split(command)
    if program == "deepspeed":
        launcher, words = words[: words.index("--module") + 2], words[words.index("--module") + 2 :]
        assert launcher == [
            "--num_gpus",
            str(find_recipe(name).facts.gpus),
            "--module",
            "clim_train",
        ]
    else:
        assert program == "clim-train"
    recipe, *options = words
    assert recipe == name
    assert configure(recipe, options) != find_recipe(name)()  # the data are named
    for words in re.findall(r"`clim-train estimate ([^`]*)`", text):
        assert words.split()[0] in RECIPES
    for option, value in re.findall(r"(--[a-z]+\.[a-z.-]+)\s+(\d+|original|fp32)\b", text):
        configure(name, [option, value])


def test_gradient_path_follows_the_batches():
    def path(*options):
        return gradient_path(configure("clim_coco_vitb16", options))

    assert path("--data.batch-size=32") == "all"  # 29 tiles and 3 single images
    assert path("--data.batch-size=29") == "dense"
    assert path("--data.batch-size=29", "--task.box-mode=attention") == "attention"
    assert path("--data.batch-size=3") == "image"


def test_no_evaluation_without_files():
    assert build_evaluators(TrainConfig(), tiny_model()) == {}

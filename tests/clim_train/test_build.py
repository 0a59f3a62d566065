"""From a configuration to a run: CLIPSelf and RegionCLIP-style training by command, on shards and
folders."""

import contextlib
import json

import numpy as np
import pytest
import torch
from clim_models import create_model
from clim_train.build import (
    build_loader,
    build_model,
    build_task,
    gradient_path,
    native_px,
)
from clim_train.commands.main import configure, main
from clim_train.config import TrainConfig
from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.regionclip import RegionClipConfig
from clim_train.options.sections import EngineConfig, ModelConfig, RunConfig
from clim_train.recipes import RECIPES
from clim_train.run.metrics import read_metrics
from clim_train.trainer import Trainer
from PIL import Image
from region_training import REGION_METHODS, region_config, region_trainer
from safetensors.torch import load_file
from tiny_training import VIT, Interrupted, tiny_model
from tolerance import SAME_LOSSES

NAMES = ("dog", "cat", "tree")


@pytest.fixture(autouse=True)
def _recipes(monkeypatch):
    monkeypatch.setitem(
        RECIPES, "mine_clipself", lambda: TrainConfig(task=ClipSelfConfig(), data=CropDataConfig())
    )
    monkeypatch.setitem(
        RECIPES,
        "mine_regionclip",
        lambda: TrainConfig(task=RegionClipConfig(), data=BoxDataConfig()),
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eight pictures in a folder, a json of labelled boxes, one of proposals, and one that lists
    half of them."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(8):
        name = f"{i:05d}.png"
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / name)
        images.append({"id": i, "file_name": name, "height": 40, "width": 48})
        for k in range(i % 3 + 1):
            box = [2 + 5 * k, 3 + 4 * k, 20, 15 + k]
            boxes.append(
                {
                    "id": len(boxes),
                    "image_id": i,
                    "category_id": (i + k) % 3 + 1,
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    write = {
        "boxes": {"images": images, "annotations": boxes, "categories": categories},
        "proposals": {
            "images": images,
            "annotations": [{**box, "category_id": 1} for box in boxes],
            "categories": [{"id": 1, "name": "object"}],
        },
        "half": {"images": images[:4], "annotations": [], "categories": categories},
    }
    for name, content in write.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def command(recipe, folder, *more):
    """A run of two steps on a tiny tower."""
    return [
        recipe,
        f"--model.name={VIT}",
        "--model.unlocked-blocks=2",
        "--data.batch-size=2",
        "--data.image-px=32",
        "--data.workers=0",
        "--schedule.steps=2",
        "--schedule.warmup-steps=1",
        "--optim.lr=1e-3",
        "--engine.device=cpu",
        "--engine.precision=fp32",
        f"--run.folder={folder}",
        "--run.log-every=1",
        "--run.no-bar",
        "--run.no-tensorboard",
        *more,
    ]


def check_run(folder):
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["loss"] > 0 and line["boxes"] >= 1 for line in lines)
    start, model = (
        load_file(folder / "start.safetensors"),
        load_file(folder / "model" / "model.safetensors"),
    )
    assert not any("logit_scale" in key for key in start)
    assert all(
        not torch.equal(value, model[key.removeprefix("clip.")]) for key, value in start.items()
    )
    create_model(VIT, pretrained=folder / "model")
    return lines


@pytest.mark.parametrize(
    "options",
    [
        ["--data.shards={shards}"],
        [
            "--data.images={pictures}",
            "--data.images-json={pictures}/half.json",
            "--data.scales",
            "32",
            "24",
        ],
        [
            "--data.images={pictures}",
            "--data.boxes={pictures}/proposals.json",
            "--task.box-mode=attention",
        ],
        [
            "--data.images={pictures}",
            "--task.teacher-batch=3",
            "--task.teacher-precision=bf16",
            "--data.crop-px=24",
        ],
    ],
    ids=[
        "grids of shards",
        "grids at two scales of listed images",
        "proposals",
        "teacher in parts",
    ],
)
def test_clipself_runs(options, shards, pictures, tmp_path):
    options = [option.format(shards=shards, pictures=pictures) for option in options]
    assert main(command("mine_clipself", tmp_path / "run", *options)) == 0
    check_run(tmp_path / "run")


def test_regionclip_runs_with_names_embedded_by_the_model(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = [
        f"--data.images={pictures}",
        f"--data.boxes={pictures}/boxes.json",
        "--task.templates=name",
    ]
    assert main(command("mine_regionclip", tmp_path / "run", *options)) == 0
    assert all(line["classes"] == len(NAMES) for line in check_run(tmp_path / "run"))


def test_regionclip_runs_with_embeddings_of_a_file(pictures, tmp_path):
    np.save(
        tmp_path / "embeddings.npy",
        np.random.default_rng(0).normal(size=(len(NAMES), 16)).astype(np.float32),
    )
    options = [f"--data.images={pictures}", f"--data.boxes={pictures}/boxes.json"]
    options += [f"--task.embeddings={tmp_path}/embeddings.npy", "--task.sampled-classes=1"]
    assert main(command("mine_regionclip", tmp_path / "run", *options)) == 0
    assert any(line["classes"] < len(NAMES) for line in check_run(tmp_path / "run"))


@pytest.mark.parametrize("recipe", ["mine_clipself", "mine_regionclip"])
def test_interrupted_run_resumes_exactly(recipe, pictures, tmp_path, monkeypatch):
    """Boxes, crops, samples of classes, and a teacher that is the start model again, not the
    trained one.

    An epoch has four batches: the run is interrupted where one ends.
    """
    options = [f"--data.images={pictures}", "--schedule.steps=6", "--run.save-every=2"]
    if recipe == "mine_regionclip":
        np.save(
            tmp_path / "embeddings.npy",
            np.random.default_rng(0).normal(size=(len(NAMES), 16)).astype(np.float32),
        )
        options += [
            f"--data.boxes={pictures}/boxes.json",
            f"--task.embeddings={tmp_path}/embeddings.npy",
        ]
        options += ["--task.sampled-classes=2"]
    assert main(command(recipe, tmp_path / "whole", *options)) == 0
    save = Trainer.save

    def save_and_die(trainer):
        save(trainer)
        if trainer.step == 4:
            trainer.close()
            raise Interrupted

    monkeypatch.setattr(Trainer, "save", save_and_die)
    with contextlib.suppress(Interrupted):
        main(command(recipe, tmp_path / "parts", *options))
    monkeypatch.undo()
    assert len(read_metrics(tmp_path / "parts")) == 4
    assert main(["resume", str(tmp_path / "parts")]) == 0
    keys = ("step", "loss", "lr", "boxes")
    whole, parts = (
        [[line[k] for k in keys] for line in read_metrics(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert parts == whole


def losses(method, folder, *, box_mode="align", **engine):
    region_trainer(region_config(method, folder, **engine), box_mode=box_mode).fit()
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("method", REGION_METHODS)
def test_engines_give_the_same_losses(method, tmp_path):
    """16-bit arithmetic nearly, weights that are taken away and offloaded exactly; teacher and
    embeddings outside."""
    expected = losses(method, tmp_path / "fp32")
    assert losses(method, tmp_path / "bf16", zero_stage=2, precision="bf16") == pytest.approx(
        expected, rel=0.02
    )
    whole = losses(method, tmp_path / "attention", box_mode="attention")
    options = {"zero_stage": 3, "offload": "optimizer_and_parameters"}
    assert losses(method, tmp_path / "z3", box_mode="attention", **options) == pytest.approx(
        whole, rel=SAME_LOSSES
    )


def region_configs(**engine):
    model = ModelConfig(name=VIT, unlocked_blocks=1)
    engine = EngineConfig(device="cpu", **engine)
    return {
        "clipself": TrainConfig(
            model=model, task=ClipSelfConfig(), data=CropDataConfig(), engine=engine
        ),
        "regionclip": TrainConfig(
            model=model, task=RegionClipConfig(), data=BoxDataConfig(), engine=engine
        ),
    }


def test_only_the_path_of_the_method_trains():
    for config in region_configs().values():
        assert gradient_path(config) == "dense"
    assert (
        gradient_path(TrainConfig(task=ClipSelfConfig(box_mode="attention"), data=CropDataConfig()))
        == "attention"
    )


@pytest.mark.parametrize(
    ("engine", "teacher", "dtype", "autocast"),
    [
        ("amp_bf16", None, torch.float32, torch.bfloat16),
        ("bf16", None, torch.bfloat16, None),
        ("amp_bf16", "fp32", torch.float32, None),
        ("fp32", "bf16", torch.bfloat16, None),
    ],
)
def test_teacher_is_a_copy_of_the_start_model_in_its_own_precision(
    engine, teacher, dtype, autocast
):
    config = TrainConfig(
        model=ModelConfig(name=VIT, unlocked_blocks=1, grad_checkpointing=True),
        task=ClipSelfConfig(teacher_precision=teacher),
        data=CropDataConfig(),
        engine=EngineConfig(precision=engine),
    )
    model = build_model(config)
    task = build_task(config, model)
    assert (task.teacher.dtype, task.teacher_autocast) == (dtype, autocast)
    weights = model.state_dict()
    copies = task.teacher.state_dict()
    assert copies.keys() == {
        name for name in weights if name.startswith(("clip.visual.", "clip.logit_scale"))
    }
    assert all(torch.equal(value, weights[name].to(dtype)) for name, value in copies.items())
    assert model.tower.grad_checkpointing
    assert not task.teacher.tower.grad_checkpointing


def test_compile_reaches_student_and_teacher():
    config = TrainConfig(
        model=ModelConfig(name=VIT),
        task=ClipSelfConfig(),
        data=CropDataConfig(),
        engine=EngineConfig(compile=True),
    )
    model = build_model(config)
    task = build_task(config, model)
    for tower in (model.tower, task.teacher.tower):
        assert all(block._compiled_call_impl is not None for block in tower.blocks)


def test_compile_is_refused_at_stage_3():
    with pytest.raises(ValueError, match=r"engine\.compile.*zero_stage=0, 1 or 2"):
        EngineConfig(compile=True, zero_stage=3)
    with pytest.raises(ValueError, match=r"engine\.compile"):
        EngineConfig(compile=True, sharded_stage=3)


def test_crops_have_the_native_size_of_the_model():
    assert native_px(TrainConfig(model=ModelConfig(name="EVA02-L-14-336"))) == 336
    assert native_px(TrainConfig(model=ModelConfig(name="EVA02-L-14-336", image_size=224))) == 224


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (
            "mine_clipself",
            [],
            "no training data: this recipe learns from images, whose captions it does not read",
        ),
        ("mine_regionclip", ["--data.images={pictures}"], "--data.boxes FILE"),
        (
            "mine_clipself",
            ["--data.images={pictures}/nothing"],
            "nothing is not a folder: this recipe learns from images",
        ),
        (
            "mine_regionclip",
            ["--data.images={pictures}/nothing"],
            "boxes of a COCO json (--data.boxes FILE); ",
        ),
        (
            "mine_clipself",
            ["--data.images={pictures}", "--data.boxes={pictures}/no.json"],
            "no.json",
        ),
    ],
)
def test_missing_data_are_named_with_the_option(
    recipe, options, message, pictures, tmp_path, capsys
):
    options = [option.format(pictures=pictures) for option in options]
    assert main(command(recipe, tmp_path / "run", *options)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "clim-data pack" not in said  # no shards are needed, and packing makes no boxes


def test_embeddings_of_another_model_are_refused(tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((len(NAMES), 24), np.float32))
    config = TrainConfig(
        model=ModelConfig(name=VIT),
        task=RegionClipConfig(embeddings=str(tmp_path / "wide.npy")),
        data=BoxDataConfig(),
    )
    with pytest.raises(
        ValueError, match=rf"24 channels, {VIT} has 16: make them with `clim-eval embed`"
    ):
        build_task(config, tiny_model(), NAMES)


def test_folders_of_pictures_with_captions_are_data_for_clim(pictures, tmp_path):
    for i in range(8):
        (tmp_path / f"{i:05d}.png").write_bytes((pictures / f"{i:05d}.png").read_bytes())
        (tmp_path / f"{i:05d}.txt").write_text(f"picture {i}")
    options = [
        f"--data.images={tmp_path}",
        "--data.batch-size=8",
        "--data.mosaic.canvas-px=32",
        "--data.workers=0",
    ]
    batch = next(iter(build_loader(configure("clim_coco_vitb16", options))))
    assert sorted(batch.captions) == [f"picture {i}" for i in range(8)]


def test_limits_and_cache_of_the_data_reach_the_loader(pictures, tmp_path):
    folder = tmp_path / "shard_cache"
    options = [
        f"--data.images={pictures}",
        "--data.max-pixels=70000",
        f"--data.cache-folder={folder}",
        "--data.cache-shards=3",
    ]
    stream = build_loader(configure("mine_clipself", options)).stream
    found = (stream.max_pixels, stream.cache_folder, stream.cache_shards)
    assert found == (70000, str(folder), 3)
    assert folder.is_dir()  # a run folder from elsewhere may write to no new place


def test_run_folder_says_its_kinds(pictures):
    config = configure("mine_clipself", [f"--data.images={pictures}", "--run.seed=3"])
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.run == RunConfig(seed=3)


def test_a_model_knows_the_size_it_is_trained_at():
    crops = TrainConfig(
        model=ModelConfig(name=VIT, unlocked_blocks=1),
        task=ClipSelfConfig(),
        data=CropDataConfig(image_px=48),
    )
    assert build_model(crops).eval_px == 48

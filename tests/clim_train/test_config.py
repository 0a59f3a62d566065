"""Configurations are checked when they are built and survive JSON and the command line."""

import dataclasses
import json

import pytest
from clim_data import MosaicConfig
from clim_train.commands.main import configure
from clim_train.config import TrainConfig
from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clim import ClimConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.regionclip import RegionClipConfig
from clim_train.methods.table import METHODS as METHOD_TABLE
from clim_train.options.sections import (
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from clim_train.recipes import RECIPES

BAD = [
    (ModelConfig, {"unlocked_blocks": -1}),
    (ModelConfig, {"name": ""}),
    (PairDataConfig, {"batch_size": 0}),
    (PairDataConfig, {"on_error": "ignore"}),
    (PairDataConfig, {"kind": "boxes"}),
    (PairDataConfig, {"max_pixels": 0}),
    (PairDataConfig, {"cache_shards": 0}),
    (CropDataConfig, {"max_split": 0}),
    (CropDataConfig, {"scales": (320, 0)}),
    (CropDataConfig, {"boxes": "boxes.json", "context": 0.5}),
    (CropDataConfig, {"boxes": "boxes.json", "min_box_px": 32, "max_box_px": 16}),
    (CropDataConfig, {"boxes": "boxes.json", "max_split": 16}),
    (CropDataConfig, {"context": 2.0}),
    (CropDataConfig, {"max_box_px": 512}),
    (CropDataConfig, {"scales": (320, 640)}),
    (CropDataConfig, {"boxes": "boxes.json", "images_json": "some.json"}),
    (CropDataConfig, {"shards": ("a.tar",), "images": "folder"}),
    (PairDataConfig, {"shards": ("a.tar",), "images": "folder"}),
    (BoxDataConfig, {"max_boxes": 0}),
    (BoxDataConfig, {"background": "pink"}),
    (BoxDataConfig, {"shards": ("a.tar",), "images": "folder"}),
    (ClimConfig, {"name": "clipself"}),
    (ClimConfig, {"box_mode": "crop"}),
    (ClimConfig, {"text_cache": -1}),
    (ClipSelfConfig, {"teacher_batch": 0}),
    (ClipSelfConfig, {"teacher_precision": "int8"}),
    (RegionClipConfig, {"sampled_classes": 0}),
    (RegionClipConfig, {"sampling": "twice"}),
    (RegionClipConfig, {"embeddings": "e.safetensors", "templates": "name"}),
    (RegionClipConfig, {"sampled_classes": None, "sampling": "original"}),
    (OptimConfig, {"lr": -1.0}),
    (OptimConfig, {"betas": (0.9, 1.0)}),
    (OptimConfig, {"eps": 0.0}),
    (OptimConfig, {"clip_norm": 0.0}),
    (ScheduleConfig, {"kind": "linear"}),
    (ScheduleConfig, {"steps": 0}),
    (ScheduleConfig, {"cooldown_steps": 100}),
    (ScheduleConfig, {"kind": "const", "cooldown_end_lr": 1e-7}),
    (EngineConfig, {"zero_stage": 4}),
    (EngineConfig, {"sharded_stage": 0}),
    (EngineConfig, {"precision": "int8"}),
    (EngineConfig, {"zero_stage": 0, "precision": "bf16"}),
    (EngineConfig, {"zero_stage": 0, "offload": "optimizer"}),
    (EngineConfig, {"zero_stage": 2, "offload": "optimizer_and_parameters"}),
    (EvaluationConfig, {"panoptic_json": "p.json", "images": "val"}),
    (RunConfig, {"alpha": 1.5}),
    (RunConfig, {"keep": 0}),
    (RunConfig, {"folder": ""}),
]


@pytest.mark.parametrize(
    ("kind", "options"), BAD, ids=lambda v: v.__name__ if isinstance(v, type) else str(v)
)
def test_illegal_values_are_rejected_with_option_value_and_fix(kind, options):
    with pytest.raises(ValueError) as error:
        kind(**options)
    message = str(error.value)
    last = list(options)[-1] if kind is not EvaluationConfig else "panoptic_json"
    named = "precision" if options.get("precision") == "bf16" else last
    assert f".{named}={options[named]!r}" in message
    assert ": use " in message


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name):
    config = RECIPES[name]()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, shards=("a.tar", "b.tar")),
        optim=OptimConfig(clip_norm=1.0),
    )
    assert TrainConfig.from_json(config.to_json()) == config


METHODS = [
    (ClimConfig(box_mode="attention"), PairDataConfig(mosaic=MosaicConfig(mix={2: 3}))),
    (
        ClipSelfConfig(teacher_batch=8),
        CropDataConfig(scales=(320, 640, 1024), boxes="proposals.json"),
    ),
    (RegionClipConfig(sampled_classes=None), BoxDataConfig(boxes="boxes.json")),
]


@pytest.mark.parametrize(
    ("task", "data"), METHODS, ids=lambda value: getattr(value, "name", "data")
)
def test_json_round_trip_keeps_the_kinds(task, data):
    config = TrainConfig(task=task, data=data)
    again = TrainConfig.from_json(config.to_json())
    assert again == config
    assert (type(again.task), type(again.data)) == (type(task), type(data))


@pytest.mark.parametrize("task", [task for task, _ in METHODS], ids=lambda task: task.name)
@pytest.mark.parametrize("data", [data for _, data in METHODS], ids=lambda data: data.kind)
def test_methods_refuse_data_of_another_kind(task, data):
    wanted = METHOD_TABLE[task.name].data.options
    if wanted is type(data):
        TrainConfig(task=task, data=data)
        return
    with pytest.raises(
        ValueError, match=f"data.kind='{data.kind}' is not possible: use .*{wanted.__name__}"
    ):
        TrainConfig(task=task, data=data)


def test_configurations_from_before_there_were_kinds_still_load():
    old = {
        "data": {"shards": ["a.tar"], "batch_size": 8, "mosaic": {"mix": {"2": 1}}},
        "task": {"name": "clim"},
    }
    assert TrainConfig.from_json(json.dumps(old)).data == PairDataConfig(
        shards=("a.tar",), batch_size=8, mosaic=MosaicConfig(mix={2: 1})
    )


@pytest.mark.parametrize(
    ("task", "data"), METHODS, ids=lambda value: getattr(value, "name", "data")
)
def test_options_of_a_recipe_are_flags_and_its_kinds_fixed(task, data, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "mine", lambda: TrainConfig(task=task, data=data))
    config = configure(
        "mine", ["--data.batch-size=3", "--data.shards", "a", "b", "--task.box-mode=align"]
    )
    assert (config.data.batch_size, config.data.shards, config.task.box_mode) == (
        3,
        ("a", "b"),
        "align",
    )
    assert (type(config.task), type(config.data)) == (type(task), type(data))
    with pytest.raises(SystemExit):
        configure("mine", ["--data.kind=others"])
    assert "--data.kind" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not JSON"),
        ('{"modle": {}}', "modle"),
        ('{"model": {"nam": "x"}}', "config.model"),
        ('{"optim": {"lr": "fast"}}', "config.optim.lr='fast'"),
        ('{"engine": {"zero_stage": true}}', "config.engine.zero_stage=True"),
        ('{"run": {"alpha": 2}}', "run.alpha"),
        (
            '{"task": {"name": "clipsalf"}}',
            "config.task.name='clipsalf' is not possible: use one of 'clim', 'clipself'",
        ),
        (
            '{"task": {"name": "clipself"}}',
            "data.kind='pairs' is not possible: use data of kind 'crops'",
        ),
        ('{"data": {"kind": "crops", "mosaic": {}}}', "config.data has unknown options"),
        ('{"data": 3}', "config.data has unknown options 3"),
    ],
)
def test_json_with_mistakes_is_refused(text, part):
    with pytest.raises(ValueError, match=part):
        TrainConfig.from_json(text)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().run.seed = 3


@pytest.mark.parametrize(
    ("options", "ranks", "stage"),
    [
        ({"precision": "fp32"}, 1, 0),
        ({"precision": "amp_bf16"}, 1, 0),
        ({"precision": "amp_bf16"}, 2, 1),
        ({"precision": "amp_bf16", "sharded_stage": 2}, 8, 2),
        ({"precision": "bf16"}, 1, 1),  # stage 0 is wrong in DeepSpeed with 16-bit weights
        ({"precision": "fp16"}, 1, 1),
        ({"precision": "fp32", "offload": "optimizer"}, 1, 1),
        ({"precision": "fp32", "zero_stage": 2}, 1, 2),
        ({"precision": "fp32", "zero_stage": 0}, 2, 0),
    ],
)
def test_one_rank_shards_nothing_unless_a_stage_is_named(options, ranks, stage):
    assert EngineConfig(**options).for_ranks(ranks).zero_stage == stage


@pytest.mark.parametrize("text", ["", '{"schedule": ', "[" * 100_000, "\xff"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json: "):
        TrainConfig.load(tmp_path)

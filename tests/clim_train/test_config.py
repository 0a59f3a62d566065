"""Configurations are checked when they are built and survive JSON and the command line."""

import dataclasses

import pytest
from clim_data import MosaicConfig
from clim_train.config import (
    DataConfig,
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TaskConfig,
    TrainConfig,
)
from clim_train.recipes import RECIPES

BAD = [
    (ModelConfig, {"unlocked_blocks": -1}),
    (ModelConfig, {"name": ""}),
    (DataConfig, {"batch_size": 0}),
    (DataConfig, {"on_error": "ignore"}),
    (TaskConfig, {"name": "clipself"}),
    (TaskConfig, {"box_mode": "crop"}),
    (TaskConfig, {"text_cache": -1}),
    (OptimConfig, {"lr": -1.0}),
    (OptimConfig, {"betas": (0.9, 1.0)}),
    (OptimConfig, {"eps": 0.0}),
    (OptimConfig, {"clip_norm": 0.0}),
    (ScheduleConfig, {"kind": "linear"}),
    (ScheduleConfig, {"steps": 0}),
    (EngineConfig, {"zero_stage": 4}),
    (EngineConfig, {"precision": "int8"}),
    (EngineConfig, {"zero_stage": 0, "precision": "bf16"}),
    (EngineConfig, {"zero_stage": 0, "offload": "optimizer"}),
    (EngineConfig, {"zero_stage": 2, "offload": "optimizer_and_parameters"}),
    (EvaluationConfig, {"panoptic_json": "p.json", "images": "val"}),
    (RunConfig, {"alpha": 1.5}),
    (RunConfig, {"keep": 0}),
    (RunConfig, {"folder": ""}),
]


@pytest.mark.parametrize(("kind", "options"), BAD, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))
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
        data=dataclasses.replace(config.data, shards=("a.tar", "b.tar"), mosaic=MosaicConfig(mix={2: 3})),
        optim=OptimConfig(clip_norm=1.0),
    )
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not JSON"),
        ('{"modle": {}}', "modle"),
        ('{"model": {"nam": "x"}}', "config.model"),
        ('{"optim": {"lr": "fast"}}', "config.optim.lr='fast'"),
        ('{"engine": {"zero_stage": true}}', "config.engine.zero_stage=True"),
        ('{"run": {"alpha": 2}}', "run.alpha"),
    ],
)
def test_json_with_mistakes_is_refused(text, part):
    with pytest.raises(ValueError, match=part):
        TrainConfig.from_json(text)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().run.seed = 3

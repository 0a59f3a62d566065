"""The estimate against what torch's allocator counts in a real step, and the arithmetic of ZeRO by
hand."""

from dataclasses import replace

import pytest
import torch
from clim_models import create_model
from clim_train.build import build_task
from clim_train.commands.estimate import count_images
from clim_train.commands.main import configure, main
from clim_train.estimate import (
    estimate,
    example_batch,
    memory_of,
    tensors_of,
)
from clim_train.methods.method import PRESETS
from clim_train.options.sections import EngineConfig, OptimConfig
from clim_train.recipes import RECIPES, find_recipe
from clim_train.recipes.presets import on_small_gpu
from clim_train.step_cost import StepCost, step_cost
from tiny_training import EVA, register_tiny_towers
from torch.profiler import ProfilerActivity, profile

SIZES = {
    "clim_coco_vitb16": [
        "--model.name=ViT-S-32",
        "--data.mosaic.canvas-px=224",
        "--data.batch-size=8",
    ],
    "clipself_coco_patches_evab16": [
        f"--model.name={EVA}",
        "--data.image-px=160",
        "--data.batch-size=8",
    ],
    "regionclip_coco_evab16": [f"--model.name={EVA}", "--data.image-px=160", "--data.batch-size=8"],
}


def small(name: str, *options: str):
    register_tiny_towers()
    return configure(
        name, [*SIZES[name], "--model.pretrained=None", "--engine.precision=fp32", *options]
    )


def task_of(config):
    model = create_model(config.model.name)
    model.freeze(
        config.model.unlocked_blocks, path="all" if config.task.name == "clim" else "dense"
    )
    model.set_grad_checkpointing(config.model.grad_checkpointing)
    return build_task(config, model, class_names=None)


def measured_peak(task, config) -> int:
    """Most bytes that a real step holds at once, as torch's CPU allocator reports them."""
    task.loss(example_batch(config))  # text features are known from here on
    # Without acc_events, torch 2.11 warns that a second cycle would lose the first one's events.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        task.loss(example_batch(config))["loss"].backward()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_estimated_memory_of_a_step_is_within_a_fifth_of_the_measured(name, checkpointing):
    config = small(name, f"--model.{'' if checkpointing else 'no-'}grad-checkpointing")
    task = task_of(config)
    # Measured first: what the task keeps of a trace is fake.
    measured = measured_peak(task, config)
    assert measured > 2e6
    for parameter in task.trainable_parameters().values():
        parameter.grad = None

    parameters, buffers = tensors_of(task)
    weights = [*parameters, *buffers]
    cost = step_cost(
        task.loss, lambda: example_batch(config), task.trainable_parameters().values(), weights
    )
    assert 0.8 < cost.peak_bytes / measured < 1.2


def test_peak_without_gradients_is_that_of_a_step_that_gives_each_away():
    """Six layers of 400 kB behind each other: kept, all gradients are there at the end; given away,
    one at a time."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(320, 320, bias=False) for _ in range(6)))
    weights, count = list(layers.parameters()), []
    batch = lambda: torch.zeros(2, 320)  # noqa: E731
    cost = step_cost(
        lambda x: {"loss": layers(x).sum()},
        batch,
        weights,
        weights,
        advance=lambda: count.append(1),
    )
    one = weights[0].nbytes
    assert 6 * one <= cost.peak_bytes < 6.2 * one
    assert one <= cost.peak_bytes_without_gradients < 2.2 * one
    assert len(count) > 18  # each layer forward and twice backward
    assert all(p.grad is None for p in weights)


def test_flops_are_those_of_the_matrix_products():
    layer = torch.nn.Linear(64, 32)
    loss = lambda batch: {"loss": layer(batch).square().mean()}  # noqa: E731
    weights = list(layer.parameters())
    cost = step_cost(loss, lambda: torch.zeros(10, 64), weights, weights)
    assert cost.flops == 2 * (
        2 * 10 * 64 * 32
    )  # forward, and the weight's gradient; the input has none
    assert all(p.grad is None for p in weights)


def engine_memory(gpus=4, **engine):
    return memory_of(EngineConfig(**engine), 1000, 500, StepCost(9000, 5000, 0), gpus=gpus)


def test_zero_stages_share_what_the_paper_says():
    def stored(stage, precision="amp_bf16"):
        memory, host = engine_memory(zero_stage=stage, precision=precision)
        assert host == 0
        assert memory.frozen_weights == 500
        return memory.trained_weights, memory.gradients, memory.optimizer_states

    assert stored(0) == (4000, 4000, 8000)
    assert stored(1) == (4000, 4000, 3000)
    assert stored(2) == (4000, 1000, 3000)
    assert stored(3) == (1000, 1000, 3000)
    assert stored(2, "bf16") == (2000, 500, 3000)


def test_offload_moves_states_to_the_host():
    memory, host = engine_memory(zero_stage=2, precision="amp_bf16", offload="optimizer")
    assert (memory.optimizer_states, memory.gradients, memory.trained_weights, host) == (
        0,
        0,
        4000,
        250 * 16,
    )
    memory, host = engine_memory(
        zero_stage=3, precision="amp_bf16", offload="optimizer_and_parameters"
    )
    assert (memory.trained_weights, host) == (0, 250 * 16 + 1000)


@pytest.fixture(scope="module")
def clipself():
    """(configuration, estimate) of a run on two GPUs."""
    config = small("clipself_coco_patches_evab16")
    return config, estimate(config, gpus=2, tflops=1e-3, images=1599)


@pytest.mark.parametrize(("momentum", "numbers"), [(0.9, 2), (0.0, 1)])
def test_sgd_has_fewer_states_than_adamw(clipself, momentum, numbers):
    config, adamw = clipself
    sgd = replace(config, optim=OptimConfig(kind="sgd", momentum=momentum))
    found = estimate(sgd, gpus=2, tflops=1e-3, images=1599)
    assert found.memory.optimizer_states == adamw.memory.optimizer_states * numbers / 3


def test_steps_and_hours_follow_from_images_and_speed(clipself):
    config, found = clipself
    assert found.steps == 100 * config.schedule.epochs
    assert found.step_seconds == pytest.approx(found.flops / 1e9)
    assert found.hours == pytest.approx(found.steps * found.step_seconds / 3600)
    assert replace(found, steps=None).hours is None


def test_the_teacher_counts_as_frozen_weights(clipself):
    config, found = clipself
    task = task_of(config)
    teacher = sum(p.numel() for p in task.teacher.parameters())
    alone = sum(p.numel() for p in task.model.parameters() if not p.requires_grad)
    assert found.frozen == alone + teacher


@pytest.mark.parametrize("name", ["fvit_lvis_evab16", "fvlm_coco_vitb16"])
def test_a_detector_is_estimated_with_as_many_boxes_as_can_train(name):
    register_tiny_towers()
    options = [f"--model.name={EVA}", "--model.pretrained=None", "--task.blocks=0", "0", "1", "1"]
    config = configure(name, [*options, "--data.image-px=64", "--data.batch-size=1"])
    found = estimate(config, gpus=1, tflops=1, images=640)
    task = task_of(config)
    trained = sum(p.numel() for p in task.trainable_parameters().values())
    assert found.trained == trained
    assert found.steps == 640 * config.schedule.epochs

    # Inputs of the first layer of a box head in 16 bits, of 512 boxes of an image.
    assert found.memory.step > 512 * 256 * 7 * 7 * 2


def test_command_prints_memory_and_time(capsys, caplog):
    name = "clipself_coco_patches_evab16"
    register_tiny_towers()
    options = [*SIZES[name], "--model.pretrained=None"]
    assert main(["estimate", name, "--gpus", "8", "--images", "118287", *options]) == 0
    text, progress = capsys.readouterr()
    assert progress == ""  # a live line is for terminals
    assert not caplog.records  # no warning of random weights, which are meant here
    assert "8 x 8 x 1" in text
    assert "optimizer states" in text
    assert "checkpoints not counted" in text
    assert text.startswith("118,287 images, as --images says\n")
    assert torch.cuda.is_available() or "no GPU here: on this CPU a step takes about" in text
    assert main(["estimate", name, "--gpus", "0", *options]) == 2
    assert "use at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "clim_quickstart"])
def test_presets_keep_the_images_of_a_step(name, preset):
    entry = find_recipe(name)
    config, plain = configure(name, ["--preset", preset]), entry()
    images = plain.data.batch_size * entry.facts.gpus
    assert config.data.batch_size * config.engine.accumulation == images
    assert config.model.grad_checkpointing
    if config.task.name == "clim":
        assert (
            config.engine.accumulation == 1
        )  # accumulated images would not be each other's negatives


def test_options_win_over_a_preset():
    config = configure("clipself_coco_patches_evab16", ["--preset=12gb", "--engine.accumulation=4"])
    assert (config.data.batch_size, config.engine.accumulation) == (1, 4)


def test_unknown_presets_are_refused():
    with pytest.raises(ValueError, match="24gb, 12gb"):
        on_small_gpu(find_recipe("clim_coco_vitb16")(), "6gb", gpus=1)


def test_images_are_counted_in_the_users_data(shards):
    facts = find_recipe("clim_coco_vitb16").facts
    config = small("clim_coco_vitb16", "--data.shards", str(shards))
    images, line = count_images(config, None, facts)
    assert images == 40
    assert line == f"40 images with captions in {shards}, 0 skipped"


def test_the_assumption_is_named_where_no_data_are():
    entry = find_recipe("clim_coco_vitb16")
    assert count_images(entry(), None, entry.facts) == (
        118_287,
        "118,287 images of COCO captions; --data.images FOLDER or --data.shards counts yours",
    )
    assert count_images(entry(), 7, entry.facts) == (7, "7 images, as --images says")

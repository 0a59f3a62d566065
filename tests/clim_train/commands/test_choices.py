"""What a run takes from the machine and the data; what the user gave stays."""

import pytest
from clim_train.commands import Machine, configure, fit_length, fit_workers
from clim_train.commands.announcement import machine_line, model_line
from clim_train.commands.choices import fit_data, fit_machine
from clim_train.recipes import RECIPES

CPU = Machine(cpus=2, threads=2)
GPU = Machine(gpu="NVIDIA H100", gpu_gb=80, cpus=16)
NOTHING: frozenset[str] = frozenset()


def recipe(name="clim_coco_vitb16"):
    return RECIPES[name]()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_stay_as_they_are_on_the_gpu_they_were_written_for(name):
    config = recipe(name)
    assert fit_machine(config, GPU, NOTHING) == config
    assert fit_data(config, 118_287, 8, NOTHING) == config
    assert fit_length(config, 20_000, NOTHING) == config


def test_quick_start_stays_as_it_is_on_a_cpu():
    assert fit_machine(recipe("clim_quickstart"), CPU, NOTHING) == recipe("clim_quickstart")


@pytest.mark.parametrize(
    ("name", "px"),
    [
        ("clim_coco_vitb16", 256),
        ("clipself_coco_proposals_eval14", 224),  # 896 px; patches of 14 px divide it
        ("regionclip_coco_evab16", 256),
    ],
)
def test_cpu_takes_fp32_small_images_and_one_worker(name, px):
    config = fit_machine(recipe(name), CPU, NOTHING)
    assert config.engine.precision == "fp32"
    assert config.data.workers == 1
    assert config.evaluation.image_px == px
    mosaic = getattr(config.data, "mosaic", None)
    assert (mosaic.canvas_px if mosaic else config.data.image_px) == px
    assert mosaic is None or mosaic.single_px == 224


def test_detectors_keep_the_side_of_their_images_on_a_cpu():
    assert fit_machine(recipe("fvit_coco_evab16"), CPU, NOTHING).data.image_px == 640


def test_options_of_the_user_stay():
    words = ["--engine.precision=amp_bf16", "--data.mosaic.canvas-px=512", "--data.workers=3"]
    given = frozenset({"engine.precision", "data.mosaic.canvas-px", "data.workers"})
    config = configure("clim_coco_vitb16", words)
    assert fit_machine(config, CPU, given) == config
    for options, name in ((["--data.batch-size=32"], "data.batch-size"),):
        config = configure("clim_coco_vitb16", options)
        assert fit_data(config, 10, 1, frozenset({name})) == config


def test_gpu_without_bf16_and_with_little_memory():
    old = Machine(gpu="Tesla T4", gpu_gb=15.8, has_bf16=False, cpus=4)
    assert fit_machine(recipe(), old, NOTHING).engine.precision == "fp32"
    assert not fit_machine(recipe(), old, NOTHING).model.grad_checkpointing
    small = Machine(gpu="RTX 3060", gpu_gb=12.6, cpus=4)
    assert fit_machine(recipe(), small, NOTHING).model.grad_checkpointing


def test_workers_are_at_most_the_cpus():
    assert fit_workers(recipe(), Machine(gpu="A100", gpu_gb=40, cpus=2), NOTHING).data.workers == 2
    assert fit_workers(recipe(), GPU, NOTHING) == recipe()


def test_few_images_make_smaller_steps():
    assert fit_data(recipe(), 10, 1, NOTHING).data.batch_size == 10
    assert fit_data(recipe(), 10, 4, NOTHING).data.batch_size == 2

    small = configure("clipself_coco_proposals_evab16", ["--preset=12gb"])
    fitted = fit_data(small, 10, 1, NOTHING)
    assert (fitted.data.batch_size, fitted.engine.accumulation) == (1, 10)


def test_warm_up_ends_within_the_run():
    fitted = fit_length(recipe(), 10, NOTHING)
    assert (fitted.schedule.warmup_share, fitted.run.log_every) == (0.1, 1)

    assert fit_length(recipe(), 1001, NOTHING).schedule == recipe().schedule
    given = configure("clim_coco_vitb16", ["--schedule.warmup-steps=50"])
    kept = fit_length(given, 10, frozenset({"schedule.warmup-steps"}))
    assert kept.schedule == given.schedule


def test_announcement_names_what_the_recipe_has_instead():
    fitted = fit_machine(recipe(), CPU, NOTHING)
    assert machine_line(recipe(), fitted, CPU) == (
        "CPU, 2 threads: fp32, images of 256 px, batch 32, 1 worker "
        "(the recipe: bf16, images of 1024 px, 4 workers)"
    )
    assert machine_line(recipe(), recipe(), GPU) == (
        "NVIDIA H100: bf16, images of 1024 px, batch 32, 4 workers"
    )
    assert model_line(recipe()) == "CLIM · ViT-B-16-quickgelu (openai) · last 6 of 12 blocks"

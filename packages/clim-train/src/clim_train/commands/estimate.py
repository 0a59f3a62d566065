"""`clim-train estimate`: options, and the estimate as a table."""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from clim_train.build import build_loader
from clim_train.commands.announcement import data_line, images_of, machine_line
from clim_train.commands.choices import Machine, fit_data, fit_machine
from clim_train.commands.given import given_options
from clim_train.commands.parser import configure
from clim_train.config import TrainConfig
from clim_train.estimate import PEAK_TFLOPS, Estimate, Memory, estimate
from clim_train.methods.method import PRESETS
from clim_train.recipes.registry import RunFacts
from clim_train.recipes.table import find_recipe
from clim_train.run.progress import duration

GB = 1e9

ROWS = {
    "frozen_weights": "frozen weights",
    "trained_weights": "trained weights",
    "gradients": "gradients",
    "optimizer_states": "optimizer states",
    "step": "activations of a micro-batch",
    "buckets": "communication buffers",
}


def estimate_recipe(arguments: Sequence[str]) -> str:
    """Return the text for `clim-train estimate RECIPE ...`.

    Raises ValueError for options that are not possible.
    """
    known, rest = build_parser().parse_known_args(list(arguments))
    if not 0 < known.fraction <= 1:
        raise ValueError(f"--share {known.fraction:g} is not possible: use more than 0, at most 1")
    if known.tflops is not None and not 0 < known.tflops < math.inf:
        raise ValueError(f"--tflops {known.tflops:g} is not possible: use a positive number")
    if known.images is not None and known.images < 1:
        raise ValueError(f"--images {known.images} is not possible: use at least 1")
    sustained = known.tflops or PEAK_TFLOPS[known.gpu] * known.fraction

    options = [*rest, "--preset", known.preset] if known.preset else rest
    config = configure(known.recipe, options)
    facts = find_recipe(known.recipe).facts

    # A preset is for one GPU.
    gpus = known.gpus
    if gpus is None:
        gpus = 1 if known.preset else facts.gpus
    if gpus < 1:
        raise ValueError(f"--gpus {gpus} is not possible: use at least 1")

    given = given_options(options)
    images, assumption = count_images(config, known.images, facts)
    fitted = _for_images(config, images, gpus, given)
    found = estimate(fitted, gpus=gpus, tflops=sustained, images=images, progress=_is_watched())
    speed = f"{sustained:.0f} TFLOPS"
    if not known.tflops:
        speed += f" ({known.fraction:.0%} of the peak of one {known.gpu})"

    lines = [assumption, estimate_text(known.recipe, fitted, found, speed)]
    if not torch.cuda.is_available():
        lines.append(cpu_line(config, images, given))
    return "\n".join(lines)


def count_images(config: TrainConfig, asked: int | None, facts: RunFacts) -> tuple[int | None, str]:
    """Return the number of images of an epoch, and the line that says where it comes from.

    The number is `asked` (--images), the count in the user's data, or the size of the recipe's data
    set.

    Raises ValueError and FileNotFoundError for data that a training would refuse, too.
    """
    data = config.data
    if asked is not None:
        return asked, f"{asked:,} images, as --images says"
    if data.images is not None or data.shards:
        quiet: Any = dataclasses.replace(data, workers=0, batch_size=1)
        alone = dataclasses.replace(config, data=quiet)
        loader = build_loader(alone)
        images = images_of(loader, alone)
        return images, data_line(config, images, loader)
    if facts.images is None:
        return None, f"{facts.data}: --data.images FOLDER or --data.shards counts yours"
    counts = "--data.images FOLDER or --data.shards counts yours"
    return facts.images, f"{facts.images:,} images of {facts.data}; {counts}"


def cpu_line(config: TrainConfig, images: int | None, given: frozenset[str]) -> str:
    """Say how long the run takes on this CPU, with the options that a run chooses for it."""
    machine = Machine.of_process(torch.device("cpu"))
    fitted = _for_images(fit_machine(config, machine, given), images, 1, given)

    tflops = cpu_tflops()
    found = estimate(fitted, gpus=1, tflops=tflops, images=images, progress=_is_watched())
    length = f", {duration(3600 * found.hours)} in all" if found.hours is not None else ""
    return (
        f"no GPU here: on this CPU a step takes about {duration(found.step_seconds)}{length}, at "
        f"{1000 * tflops:.0f} GFLOPS, measured just now\n{machine_line(config, fitted, machine)}"
    )


def cpu_tflops(side: int = 768, repeats: int = 4) -> float:
    """Measure the speed of matrix products on this CPU, in 1e12 operations per second."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    _ = left @ right  # threads start
    began = time.perf_counter()
    for _ in range(repeats):
        _ = left @ right
    return 2 * side**3 * repeats / (time.perf_counter() - began) / 1e12


def _for_images(
    config: TrainConfig, images: int | None, gpus: int, given: frozenset[str]
) -> TrainConfig:
    return config if images is None else fit_data(config, images, gpus, given)


def _is_watched() -> bool:
    """Whether somebody sees a live line: files and pipes get none."""
    return sys.stderr.isatty()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own options."""
    parser = argparse.ArgumentParser(
        prog="clim-train estimate",
        description="Memory and time of a recipe, from a trace of its step. "
        "Any option of the recipe may follow.",
    )
    parser.add_argument("recipe")
    parser.add_argument(
        "--gpus",
        type=int,
        help="GPUs that share the run (default: as in the recipe, 1 with --preset)",
    )
    parser.add_argument(
        "--gpu", default="A100", choices=list(PEAK_TFLOPS), help="kind of GPU (default: A100)"
    )
    parser.add_argument(
        "--share",
        dest="fraction",
        type=float,
        default=0.35,
        help="fraction of its peak speed that is reached (default: 0.35)",
    )
    parser.add_argument(
        "--tflops", type=float, help="sustained TFLOPS of one GPU, in place of --gpu and --share"
    )
    parser.add_argument(
        "--images",
        type=int,
        help="images of the data set (default: those of --data.images or --data.shards, else of "
        "the recipe's data set)",
    )
    parser.add_argument("--preset", choices=list(PRESETS), help="the recipe on one small GPU")
    return parser


def estimate_text(name: str, config: TrainConfig, found: Estimate, speed: str) -> str:
    """Return a table of memory and lines about time, in Markdown."""
    engine = config.engine.for_ranks(found.gpus)
    batch_size = config.data.batch_size
    checkpointing = ", gradient checkpointing" if config.model.grad_checkpointing else ""
    lines = [
        f"{name}: {config.model.name}, {found.trained / 1e6:.1f} M parameters train, "
        f"{found.frozen / 1e6:.1f} M are frozen",
        f"GPUs x images x micro-batches: {found.gpus} x {batch_size} x {engine.accumulation}; "
        f"ZeRO-{engine.zero_stage}, {engine.precision}{checkpointing}",
        "",
        *_memory_table(found.memory),
    ]
    if found.host_bytes:
        lines.append(f"and {found.host_bytes / GB:.1f} GB of host memory per GPU")

    images_per_second = batch_size * engine.accumulation / found.step_seconds
    lines += [
        "Add the CUDA context (about half a GB) and a few percent of fragmentation.",
        "",
        f"{found.flops / 1e12:.1f} TFLOP per GPU and step: {found.step_seconds:.2f} s at {speed}; "
        f"the loader has to deliver {images_per_second:.0f} images/s per GPU",
    ]
    if found.hours is None:
        lines.append("the length depends on your data: give --images, or --schedule.steps")
    else:
        lines.append(
            f"{found.steps:,} steps: {duration(3600 * found.hours)}, evaluation and checkpoints "
            "not counted"
        )
    return "\n".join(lines)


def _memory_table(memory: Memory) -> list[str]:
    rows = [(label, getattr(memory, name)) for name, label in ROWS.items()]
    rows.append(("together", memory.total))

    width = max(len(label) for label, _ in rows)
    lines = [f"| {'memory of one GPU'.ljust(width)} |    GB |", f"|{'-' * (width + 2)}|------:|"]
    lines += [f"| {label.ljust(width)} | {value / GB:5.2f} |" for label, value in rows]
    return lines

"""`clim-train estimate`: reads the command, prints what `estimate` found as a table."""

import argparse
from collections.abc import Callable, Sequence

from clim_train.config import TrainConfig
from clim_train.estimate import PEAK_TFLOPS, Estimate, Memory, estimate
from clim_train.methods.method import PRESETS
from clim_train.recipes.table import find_recipe

GB = 1e9

ROWS = {
    "frozen_weights": "frozen weights",
    "trained_weights": "trained weights",
    "gradients": "gradients",
    "optimizer_states": "optimizer states",
    "step": "activations of a micro-batch",
    "buckets": "communication buffers",
}


def estimate_recipe(
    argv: Sequence[str], configure: Callable[[str, Sequence[str]], TrainConfig]
) -> str:
    """The text for `clim-train estimate ...`; `configure` makes a configuration of a recipe and its
    options.

    Raises ValueError for options that are not possible.
    """
    parser = argparse.ArgumentParser(
        prog="clim-train estimate",
        description="Memory and time of a recipe, from a trace of its step. "
        "Any option of the recipe may follow.",
    )
    parser.add_argument("recipe")
    parser.add_argument(
        "--gpus",
        type=int,
        help="GPUs that share the run (default: those of the recipe, 1 with --preset)",
    )
    parser.add_argument(
        "--gpu", default="A100", choices=list(PEAK_TFLOPS), help="kind of GPU (default: A100)"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.35,
        help="share of its peak that is reached (default: 0.35)",
    )
    parser.add_argument(
        "--tflops", type=float, help="sustained TFLOPS of one GPU, in place of --gpu and --share"
    )
    parser.add_argument(
        "--images", type=int, help="images of the data set (default: those of the recipe's)"
    )
    parser.add_argument("--preset", choices=list(PRESETS), help="the recipe on one small GPU")
    known, rest = parser.parse_known_args(list(argv))
    facts = find_recipe(known.recipe).facts
    options = [*rest, "--preset", known.preset] if known.preset else rest
    config = configure(known.recipe, options)
    gpus = known.gpus if known.gpus is not None else 1 if known.preset else facts.gpus
    if gpus < 1:
        raise ValueError(f"--gpus {gpus} is not possible: use at least 1")
    sustained = known.tflops or PEAK_TFLOPS[known.gpu] * known.share
    if not 0 < known.share <= 1 or sustained <= 0:
        raise ValueError(
            f"--share {known.share:g}, --tflops {known.tflops} are not possible: use positive "
            "numbers, a share up to 1"
        )
    found = estimate(
        config, gpus=gpus, tflops=sustained, images=known.images or facts.images, progress=True
    )
    speed = f"{sustained:.0f} TFLOPS" + (
        "" if known.tflops else f" ({known.share:.0%} of a {known.gpu}'s peak)"
    )
    return estimate_text(known.recipe, config, found, speed)


def estimate_text(name: str, config: TrainConfig, found: Estimate, speed: str) -> str:
    """A table of memory and lines about time, in Markdown."""
    engine, data = config.engine.for_ranks(found.gpus), config.data
    images = data.batch_size * engine.accumulation
    checkpointing = ", gradient checkpointing" if config.model.grad_checkpointing else ""
    lines = [
        f"{name}: {config.model.name}, {found.trained / 1e6:.1f} M parameters train, "
        f"{found.frozen / 1e6:.1f} M are frozen",
        f"GPUs x images x micro-batches: {found.gpus} x {data.batch_size} x {engine.accumulation}; "
        f"ZeRO-{engine.zero_stage}, {engine.precision}{checkpointing}",
        "",
        *_memory_table(found.memory),
    ]
    if found.host_bytes:
        lines.append(f"and {found.host_bytes / GB:.1f} GB of host memory per GPU")
    lines += [
        "Add the CUDA context (about half a GB) and a few percent of fragmentation.",
        "",
        f"{found.flops / 1e12:.1f} TFLOP per GPU and step: {found.step_seconds:.2f} s at {speed}; "
        f"the loader has to deliver {images / found.step_seconds:.0f} images/s per GPU",
    ]
    if found.hours is None:
        lines.append("the length depends on your data: give --images, or --schedule.steps")
    else:
        lines.append(
            f"{found.steps} steps: {found.hours:.1f} hours, evaluation and checkpoints not counted"
        )
    return "\n".join(lines)


def _memory_table(memory: Memory) -> list[str]:
    rows = [(label, getattr(memory, name)) for name, label in ROWS.items()] + [
        ("together", memory.total)
    ]
    width = max(len(label) for label, _ in rows)
    head = [f"| {'memory of one GPU'.ljust(width)} |    GB |", f"|{'-' * (width + 2)}|------:|"]
    return head + [f"| {label.ljust(width)} | {value / GB:5.2f} |" for label, value in rows]

"""What a run says before it starts: model, data, choices for this machine, and length."""

from typing import Any

from clim_models import NO_WEIGHTS, model_config

from clim_train.commands.choices import Machine
from clim_train.config import TrainConfig
from clim_train.methods.table import find_method
from clim_train.options.run_options import RunOptions

FEW_IMAGES = 200
"""With fewer images than this, a run only shows that everything works."""

PRECISION_NAMES = {"amp_bf16": "bf16"}


def announce(
    recipe: TrainConfig, config: TrainConfig, loader: Any, *, machine: Machine, steps: int
) -> list[str]:
    """Return the lines that describe a run, with a warning if there are few images.

    Args:
        recipe: with the user's options, before anything is chosen for the machine.
        config: of the run.
        loader: what it reads: an `EpochLoader`, or one with its lengths.
        steps: of the run.
    """
    images = images_of(loader, config)
    lines = [
        model_line(config),
        data_line(config, images, loader),
        machine_line(recipe, config, machine),
        length_line(recipe, config, steps),
    ]
    if images < FEW_IMAGES:
        lines.append(
            f"{images} images are enough to see it run, not to learn: the papers trained on "
            "118,287 images or more"
        )
    return lines


def images_of(loader: Any, config: RunOptions) -> int:
    """Return the number of images of an epoch, over all ranks."""
    return getattr(loader, "num_samples", len(loader) * config.data.batch_size)


def model_line(config: TrainConfig) -> str:
    """Say which method trains which model, and how much of it."""
    model, method = config.model, find_method(config.task.name)
    layers = model_config(model.name)["vision_cfg"].get("layers")
    total = f" of {layers}" if isinstance(layers, int) and layers >= model.unlocked_blocks else ""

    what = "frozen tower"
    if model.unlocked_blocks:
        what = f"last {model.unlocked_blocks}{total} blocks"
    weights = "random weights" if model.pretrained in (None, NO_WEIGHTS) else model.pretrained
    return f"{method.title or method.name} · {model.name} ({weights}) · {what}"


def data_line(config: TrainConfig, images: int, loader: Any) -> str:
    """Say how many images there are, where, and how many cannot be used."""
    data = config.data
    skipped = getattr(getattr(loader, "skipped", None), "total", 0)
    return f"{images:,} {data.NOUN} in {', '.join(data.sources())}, {skipped:,} skipped"


def machine_line(recipe: TrainConfig, config: TrainConfig, machine: Machine) -> str:
    """Say where the run computes, with the recipe's own values in parentheses."""
    if machine.gpu is None:
        threads = "thread" if machine.threads == 1 else "threads"
        where = f"CPU, {machine.threads} {threads}"
    else:
        where = machine.gpu

    now, before = _settings(config), _settings(recipe)
    changed = [text for name, text in before.items() if text != now[name]]
    own = f" (the recipe: {', '.join(changed)})" if changed else ""
    return f"{where}: {', '.join(text for text in now.values() if text)}{own}"


def _settings(config: TrainConfig) -> dict[str, str]:
    """Describe the options that may be chosen for a machine; "" where the default needs no
    words."""
    data, engine = config.data, config.engine
    accumulation = f" x {engine.accumulation}" if engine.accumulation > 1 else ""
    return {
        "precision": PRECISION_NAMES.get(engine.precision, engine.precision),
        "px": f"images of {find_method(config.task.name).data.largest_px(data)} px",
        "batch": f"batch {data.batch_size}{accumulation}",
        "workers": f"{data.workers} worker{'s' if data.workers != 1 else ''}",
        "memory": "checkpointed blocks" if config.model.grad_checkpointing else "",
    }


def length_line(recipe: RunOptions, config: RunOptions, steps: int) -> str:
    """Say how long the run and its warm-up are."""
    schedule = config.schedule
    epochs = "1 epoch" if schedule.epochs == 1 else f"{schedule.epochs:,} epochs"
    length = f"{epochs} = " if schedule.steps is None else ""

    if schedule.warmup_share is None:
        warmup = schedule.warmup_steps
    else:
        warmup = int(schedule.warmup_share * steps)
    beginning = f"warm-up {_steps(warmup)}" if warmup else "no warm-up"
    if recipe.schedule.warmup_share != schedule.warmup_share:
        beginning += f" (the recipe's {recipe.schedule.warmup_steps:,} would never end)"
    return f"{length}{_steps(steps)}, {beginning}"


def _steps(count: int) -> str:
    return f"{count:,} step" if count == 1 else f"{count:,} steps"

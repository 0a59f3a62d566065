"""Options that the user gave on the command line; they are never changed for the machine."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from clim_train.options.run_options import RunOptions

Config = TypeVar("Config", bound=RunOptions)


def given_options(words: Sequence[str]) -> frozenset[str]:
    """Return the names of the options among the words of a command line.

    `--data.batch-size 8`, `--data.batch_size=8` are "data.batch-size", and `--run.no-bar` is
    "run.bar", as `--run.bar` is.
    """
    found = set()
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("_", "-")
            found.add(name.replace(".no-", "."))
    return frozenset(found)


def wants_json(rest: Sequence[str]) -> bool:
    """Return whether `list` was asked for JSON. Raises ValueError for anything else."""
    if rest and list(rest) != ["--json"]:
        raise ValueError(f"`list` takes no {' '.join(rest)}: use `clim-train list [--json]`")
    return bool(rest)


def with_given_length(config: Config, given: frozenset[str]) -> Config:
    """Return the configuration whose length is the one that the user gave.

    A recipe has steps or epochs, and steps win. Epochs of the user replace the steps of the recipe.

    Raises ValueError where the user gave both.
    """
    schedule = config.schedule
    if "schedule.epochs" not in given or schedule.steps is None:
        return config
    if "schedule.steps" in given:
        raise ValueError(
            f"--schedule.epochs {schedule.epochs} and --schedule.steps {schedule.steps} are two "
            "lengths of one run: leave one of them out"
        )
    changed: Any = replace(config, schedule=replace(schedule, steps=None))
    return changed

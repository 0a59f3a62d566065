"""The commands of `clim-train`, once `start` has seen that one is called."""

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.command_line import one_argument, without_launcher_options
from clim_data.processes import Ranks

from clim_train.commands.announcement import announce, images_of
from clim_train.commands.choices import Machine, fit_data, fit_length, fit_machine
from clim_train.commands.ending import finish_run
from clim_train.commands.given import wants_json
from clim_train.commands.parser import configure
from clim_train.commands.runs import RunProgram, exit_status
from clim_train.config import TrainConfig
from clim_train.methods.views import DetectionDataConfig
from clim_train.recipes.catalogue import list_recipes
from clim_train.recipes.table import find_recipe, summaries

if TYPE_CHECKING:
    from clim_train.task import Loader, Task
    from clim_train.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, which the first word names, and return its exit status."""
    arguments = without_launcher_options(sys.argv[1:] if argv is None else argv)
    command = partial(PROGRAM.run, arguments)
    return exit_status(
        command,
        program=PROGRAM.name,
        continues=f"`{PROGRAM.name} resume RUN` continues a run that has saved a checkpoint",
    )


def show(recipe: str) -> str:
    """Return docstring and JSON of a recipe."""
    entry = find_recipe(recipe)
    return f"{recipe}\n\n{inspect.getdoc(entry.function)}\n\n{entry().to_json()}"


def build_trainer(
    config: TrainConfig, *, resume: bool, given: frozenset[str] | None = None
) -> "Trainer":
    """Build everything that a run needs; the process group exists already.

    Args:
        config: of the run.
        resume: continue the newest checkpoint of its folder.
        given: options that the user gave: others are chosen for the machine and the data, and the
            first rank says so. None chooses nothing.
    """
    # Imported here: `list` and `show` need neither of them.
    from clim_train.build import build_evaluators, build_loader, build_model, build_task
    from clim_train.trainer import Trainer

    # The data first: a mistake in them shows before the model is loaded.
    if given is None:
        loader = build_loader(config)
    else:
        config, loader = fit_to_place(config, given)
    model = build_model(config)
    facts = ("class_names", "trained_names", "image_counts")
    task = build_task(config, model, *(getattr(loader, name, ()) for name in facts))
    return Trainer(config, task, loader, build_evaluators(config, model), resume=resume)


def fit_to_place(config: TrainConfig, given: frozenset[str]) -> tuple[TrainConfig, "Loader"]:
    """Return the configuration for this machine and these data, and its loader.

    The first rank prints what was chosen.
    """
    from clim_train.build import build_loader
    from clim_train.options.device import choose_device
    from clim_train.schedule import total_steps

    ranks = Ranks.of_group()
    machine = Machine.of_process(choose_device(config.engine))
    fitted = fit_machine(config, machine, given)
    loader = build_loader(fitted)

    smaller = fit_data(fitted, images_of(loader, fitted), ranks.world_size, given)
    if smaller != fitted:
        fitted, loader = smaller, build_loader(smaller)
    steps = total_steps(len(loader), fitted.engine.accumulation, fitted.schedule)
    fitted = fit_length(fitted, steps, given)

    if ranks.is_first:
        lines = announce(config, fitted, loader, machine=machine, steps=steps)
        print(*lines, sep="\n", flush=True)
    return fitted, loader


def build_task_alone(config: TrainConfig) -> "Task":
    """Build the task of a run for an export, without its data: class names are in its folder.

    Raises ValueError where a detector's are missing.
    """
    from clim_train.build import build_model, build_task
    from clim_train.run_files import CLASSES_FILE, read_classes

    folder = Path(config.run.folder)
    names, trained = read_classes(folder)
    if names is None and isinstance(config.data, DetectionDataConfig):
        # Without names a task has the right shapes only.
        raise ValueError(
            f"{folder / CLASSES_FILE}, with the names of the detector's classes, is missing: put "
            "back a copy"
        )
    return build_task(config, build_model(config), names, trained)


def _check_names(config: TrainConfig, source: str) -> None:
    from clim_models import check_foreign_name

    check_foreign_name(config.model.name, source)


def _sources(config: TrainConfig) -> Iterable[Any]:
    return dataclasses.asdict(config.data).values()


def _list(rest: Sequence[str]) -> None:
    print(list_recipes(summaries(), as_json=wants_json(rest)))


def _show(rest: Sequence[str]) -> None:
    print(show(one_argument(rest, "clim-train show RECIPE")))


def _estimate(rest: Sequence[str]) -> None:
    from clim_train.commands.estimate import estimate_recipe

    print(estimate_recipe(rest))


PROGRAM = RunProgram(
    name="clim-train",
    configure=configure,
    load=TrainConfig.load,
    sources=_sources,
    check_names=_check_names,
    build=build_trainer,
    build_task=build_task_alone,
    finish=finish_run,
    further={"list": _list, "show": _show, "estimate": _estimate},
)

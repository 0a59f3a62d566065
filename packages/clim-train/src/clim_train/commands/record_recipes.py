"""Update the stored facts of the recipes: `python -m clim_train.commands.record_recipes`.

The memory of a recipe comes from a trace of its step, which takes up to two minutes for a detector.
Name recipes to trace them again; without names, recipes of unknown memory are traced. `--help-only`
traces none.
"""

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from clim_data.files import write_json
from tqdm import tqdm

from clim_train.commands.parser import configure
from clim_train.estimate import estimate
from clim_train.recipes.catalogue import CATALOGUE, HELP_COLUMNS, read_catalogue, write_help
from clim_train.recipes.registry import Recipe
from clim_train.recipes.table import RECIPES, find_recipe, summaries


def main(argv: Sequence[str]) -> None:
    """Write the help of every recipe and, without `--help-only`, their memory and the list."""
    write_help({name: help_of(name) for name in RECIPES})
    write_summaries({})
    if "--help-only" in argv:
        return

    unknown = [name for name, summary in summaries().items() if summary.gb is None]
    for name in tqdm(argv or unknown):
        # After each, so that an interrupted command goes on where it was.
        write_summaries({name: memory_gb(find_recipe(name))})


def write_summaries(measured: Mapping[str, float]) -> None:
    """Store all recipes in short, with the memory that is known and the one that was measured."""
    read_catalogue.cache_clear()
    stored = {}
    for name, summary in summaries().items():
        stored[name] = asdict(replace(summary, gb=measured.get(name, summary.gb)))
    write_json(CATALOGUE, stored, indent=2)


def help_of(name: str) -> str:
    """Return what `clim-train NAME --help` prints in a terminal of `HELP_COLUMNS`."""
    out = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(HELP_COLUMNS)
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            configure(name, ["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def memory_gb(entry: Recipe) -> float:
    """Return the memory of one of the recipe's GPUs, in GB with one digit."""
    memory = estimate(entry(), gpus=entry.facts.gpus, tflops=1.0).memory
    return round(memory.total / 1e9, 1)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Write what is stored of the recipes anew: `python -m clim_train.commands.record_recipes`.

It takes minutes: the memory of each recipe comes from a trace of its step. `--help-only` writes the
help alone.
"""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from clim_data.files import write_json
from tqdm import tqdm

from clim_train.commands.parser import configure
from clim_train.estimate import estimate
from clim_train.recipes.catalogue import CATALOGUE, HELP_COLUMNS, write_help
from clim_train.recipes.registry import Recipe
from clim_train.recipes.table import RECIPES, summarize


def main(argv: Sequence[str]) -> None:
    """Write the help of every recipe, and unless told otherwise, estimate each and list them."""
    write_help({name: help_of(name) for name in RECIPES})
    if "--help-only" in argv:
        return

    found = {}
    for name, entry in tqdm(RECIPES.items()):
        found[name] = asdict(replace(summarize(name, entry), gb=memory_gb(entry)))
    write_json(CATALOGUE, found, indent=2)


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

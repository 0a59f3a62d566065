"""The one place where the harness names modules of the packages that are no public `__init__.py`.

Everything else goes through public names, console scripts, `python -m` and recipes. Who moves a
module changes a line here, and nothing else below `tests/house`.
"""

import runpy
import sys
import tomllib
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("clim_data", "clim_models", "clim_eval", "clim_train", "flmm")

# What the training tests train, see the modules themselves. `tests/helpers` is on the path.
HELPERS = {
    "clim": "tiny_training",
    "regions": "region_training",
    "grounding": "tiny_grounding",
}


def helper(name: str) -> Any:
    """A module of tiny models and loaders that the tests share."""
    return import_module(HELPERS[name])


def programs() -> dict[str, Callable[[Sequence[str]], int]]:
    """Find the main function of each console script, by name.

    The packages' own `pyproject.toml` files say where it is, so that a move needs no new install.
    """
    found = {}
    for file in sorted(ROOT.glob("packages/*/pyproject.toml")):
        scripts = tomllib.loads(file.read_text())["project"].get("scripts", {})
        for name, target in scripts.items():
            module, _, function = target.partition(":")
            found[name] = getattr(import_module(module), function)
    return found


def run_module(name: str, arguments: Sequence[str]) -> int | None:
    """Do `python -m NAME ARGUMENTS` in this process. SystemExit passes through."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        with warnings.catch_warnings():
            # A test may have imported the module already, which runpy warns about.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
            runpy.run_module(name, run_name="__main__", alter_sys=False)
    finally:
        sys.argv = before
    return None

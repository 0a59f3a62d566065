"""Configurations of all recipes, as `show` prints them."""

import re
from collections.abc import Callable
from typing import Any

from clim_train import TrainConfig
from flmm import GroundingConfig
from house import access, commands

# Folder of the records -> program, arguments before `list` and `show`, class of the config.json.
KINDS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "clim_train": ("clim-train", (), TrainConfig),
    "flmm": ("flmm", ("train",), GroundingConfig),
}


def collect(kind: str) -> dict[str, str]:
    """Return the text of every recipe's `config.json`, by the name of the recipe."""
    program, before, _ = KINDS[kind]
    main = access.programs()[program]

    table = _output(main, [*before, "list"])
    names = re.findall(r"^\| (\w+)", table, re.MULTILINE)
    return {
        name: config_of(_output(main, [*before, "show", name]))
        for name in names
        if name != "recipe"
    }


def config_of(shown: str) -> str:
    """Return the configuration at the end of what `show` prints."""
    return shown[shown.index("\n{") + 1 :].strip() + "\n"


def _output(main: Callable[..., Any], arguments: list[str]) -> str:
    status, out, err = commands.run(main, arguments)
    assert status == 0, err
    return out

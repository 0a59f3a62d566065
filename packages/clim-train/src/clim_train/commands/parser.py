"""The options of a recipe on the command line, made by tyro from the recipe's own configuration."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from clim_train.commands.given import given_options, with_given_length
from clim_train.config import TrainConfig
from clim_train.recipes.presets import on_small_gpu
from clim_train.recipes.table import find_recipe

Preset = Literal["24gb", "12gb"]
PRESET_HELP = (
    "The recipe's steps on one GPU with this much memory. "
    "Options that you give win over the preset."
)


def configure(recipe: str, options: Sequence[str]) -> TrainConfig:
    """Return the recipe's configuration with `--preset NAME` and `--section.option value` applied.

    `--help` prints all options and exits.
    """
    import tyro

    entry = find_recipe(recipe)
    default = entry()

    # A preset changes defaults, so it has to be known before the other options are read.
    preset, _ = tyro.cli(_PresetOnly, args=list(options), return_unknown_args=True, add_help=False)
    if preset.preset is not None:
        default = on_small_gpu(default, preset.preset, gpus=entry.facts.gpus)

    parsed: Any = tyro.cli(_options_of(default), prog=f"clim-train {recipe}", args=list(options))
    sections = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(default)}
    config = dataclasses.replace(default, **sections)
    return with_given_length(config, given_options(options))


@dataclasses.dataclass(frozen=True)
class _PresetOnly:
    preset: Preset | None = None


def _options_of(config: TrainConfig) -> type:
    """Return a dataclass with the sections of `config`, each of its own class, and the preset.

    The recipe's method and kind of data stay: declared by their own classes, their options are
    flags.
    """
    import tyro

    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        fields.append((field.name, type(section), dataclasses.field(default=section)))

    preset = Annotated[Preset | None, tyro.conf.arg(help=PRESET_HELP)]
    fields.append(("preset", preset, dataclasses.field(default=None)))
    return dataclasses.make_dataclass("RecipeOptions", fields, frozen=True)

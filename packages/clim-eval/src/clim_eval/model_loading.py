"""The model of a command, by its name and weights, or by a run folder, which knows both."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from clim_data.processes import Ranks, local_device

if TYPE_CHECKING:
    from clim_models import RegionModel


class ModelChoice(Protocol):
    """Options of a command or a job that choose a model."""

    @property
    def model(self) -> str | None:
        """Its name; None where the weights know it."""

    @property
    def pretrained(self) -> str | None:
        """Its weights."""

    @property
    def trust(self) -> bool:
        """Whether the weights may name a model that brings code."""

    @property
    def precision(self) -> str:
        """One of `clim_models.PRECISIONS`."""

    @property
    def device(self) -> str | None:
        """Where it runs; None picks the GPU if there is one."""


def load_chosen_model(choice: ModelChoice) -> "RegionModel":
    """Load the model that options choose, see `load_region_model`.

    Raises:
        ValueError: nothing names the model, or the name may bring code.
    """
    name = choice.model or model_of_run(choice.pretrained, trusted=choice.trust)
    device = pick_device(choice.device)
    return load_region_model(name, choice.pretrained, precision=choice.precision, device=device)


def load_region_model(
    name: str, pretrained: str | Path | None, *, precision: str, device: str
) -> "RegionModel":
    """Build a model with its weights; warn on stderr about random weights, and about weights for
    one purpose."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_models import create_model

    # Every rank and every run draws the same random weights.
    torch.manual_seed(0)
    model = create_model(name, pretrained=pretrained, precision=precision, device=device)
    if has_random_weights(model):
        say("the weights of the model are random, which only shows that it runs: --pretrained")
    elif model.knows:
        say(f'{name} "{model.pretrained}" knows {model.knows}')
    return model


def has_random_weights(model: "RegionModel") -> bool:
    """Return whether a model was built without weights."""
    from clim_models import NO_WEIGHTS

    return model.pretrained == NO_WEIGHTS


def say(note: str) -> None:
    """Print a note for people on stderr, once for all ranks."""
    if Ranks.of_group().is_first:
        print(note, file=sys.stderr)


def reading_px(model: "RegionModel", asked: int | None, default: int | None = None) -> int:
    """Return the side at which a model reads images for regions.

    It is `--image-px`, else the size of the model's training (with a note on stderr), else
    `default`, else 64 patches, the published protocol.
    """
    if asked is not None:
        return asked
    if model.eval_px is not None:
        px = model.eval_px
        say(f"reading at {px} px, the canvas of this training (--image-px changes it)")
        return px
    return default or 64 * model.stride


def pick_device(device: str | None) -> str:
    """Return the requested device, else the result of `local_device`."""
    return device or str(local_device())


def templates_of_run(folder: Path | None) -> str | None:
    """Return the name of the templates with which a training embeds class names, None where its
    `config.json` does not say."""
    try:
        config = json.loads((folder / "config.json").read_text()) if folder else {}
    except (OSError, ValueError, RecursionError):
        return None
    found = None
    for section in ("task", "evaluation"):
        part = config.get(section) if isinstance(config, dict) else None
        found = found or (part.get("templates") if isinstance(part, dict) else None)
    return found if isinstance(found, str) else None


def model_of_run(pretrained: str | Path | None, *, trusted: bool = False) -> str:
    """Return the name of the model of some weights, from an export or a run folder.

    The tags of clim-tiny name it, too.

    Raises:
        ValueError: no file says it, or, unless `trusted`, the name may bring code.
    """
    from clim_models import SHIPPED_FILES, TINY, name_of_export

    if pretrained in SHIPPED_FILES and not Path(str(pretrained)).exists():
        return TINY
    name = name_of_export(pretrained, trusted=trusted) if pretrained else None
    if not name:
        raise ValueError(
            "which model? pass --model and --pretrained, such as --model ViT-B-16-quickgelu "
            "--pretrained openai, or --pretrained RUN with the folder of a finished run "
            "(`clim-train export RUN` finishes a stopped one)"
        )
    return name

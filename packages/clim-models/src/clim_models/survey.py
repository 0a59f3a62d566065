"""List the models of open_clip that have region features: `python -m clim_models.survey [NAME
...]`.

Image towers are built without weights, so that all names take half a minute and nothing is
fetched.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import open_clip

from clim_models.more_models import why_refused
from clim_models.names import model_config
from clim_models.open_clip_compat import build_image_tower, has_image_tower, no_weights_yet
from clim_models.towers.registry import find_tower


@dataclass(frozen=True)
class SurveyedTower:
    """The features that can be read from the image tower of a model.

    Attributes:
        name: open_clip's name of the model.
        reader: class that reads the tower, "" where it is refused.
        kind: short name of the kind, "" where it is refused.
        stride: pixels per position of the map.
        attention: whether mode "attention" works, for boxes and masks.
        refusal: why the tower cannot be read, "" where it can.
    """

    name: str
    reader: str = ""
    kind: str = ""
    stride: int = 0
    attention: bool = False
    refusal: str = ""


def survey_tower(name: str) -> SurveyedTower:
    """Build the image tower of an open_clip name without weights, and find its reader.

    Raises:
        ValueError: an unknown name; the closest are listed.
    """
    config = model_config(name)
    if not has_image_tower(config):
        reason = why_refused(name) or "it has no image tower"
        return SurveyedTower(name, refusal=f"no region features: {reason}")
    with no_weights_yet():
        visual = build_image_tower(config)
    try:
        tower = find_tower(visual)
    except ValueError as error:
        return SurveyedTower(name, refusal=str(error).partition(":")[0])
    return SurveyedTower(
        name,
        reader=type(tower).__name__,
        kind=tower.kind,
        stride=tower.stride,
        attention="attend" in tower.supports,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each name, and the number of readable models."""
    parser = argparse.ArgumentParser(prog="python -m clim_models.survey", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of open_clip's")
    names = parser.parse_args(argv).names or open_clip.list_models()

    readable = 0
    for name in names:
        found = survey_tower(name)
        readable += not found.refusal
        modes = "dense, attention" if found.attention else "dense"
        line = found.refusal or f"{found.kind:10} {found.stride:2d} px  {modes}"
        print(f"{name:36} {line}", flush=True)
    print(f"{readable} of {len(names)} have region features")


if __name__ == "__main__":
    main()

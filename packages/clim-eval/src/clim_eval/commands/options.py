"""Options that several commands of `clim-eval` take, and how their help looks."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clim_eval.commands.shared import PROTOCOLS
from clim_eval.evaluators.regions import READOUTS

TEMPLATE_NAMES = ("vild", "photo", "name")

Commands = Any  # what `add_subparsers` returns: argparse has no public name for its class


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, but not those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or isinstance(action.default, bool | list)
        return action.help if says_nothing else super()._get_help_string(action)


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """Add a command that calls `run` with its options; return its parser."""
    parser = commands.add_parser(name, help=text, description=text, formatter_class=_Formatter)
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser, image_px: str = "") -> None:
    """Add which model, and where it runs.

    `image_px` says the default of --image-px; "" leaves that option out.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        help="open_clip name such as EVA02-B-16, or clim-tiny; a run folder knows its own",
    )
    group.add_argument(
        "--pretrained", help="open_clip tag, .pt or .safetensors file, or run folder"
    )
    if image_px:
        group.add_argument(
            "--image-px", type=int, help=f"side of the input in pixels; default: {image_px}"
        )
    add_device_options(group)


def add_device_options(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --precision and --device."""
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    group.add_argument("--device", help="default: cuda if there is one, else cpu")


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add a data set with annotated regions."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--images", type=Path, required=required, help="folder of images, for example val2017"
    )
    source = group.add_mutually_exclusive_group(required=required)
    source.add_argument("--panoptic-json", type=Path, help="COCO panoptic annotation file")
    source.add_argument(
        "--instances-json", type=Path, help="COCO or LVIS instances annotation file"
    )
    group.add_argument(
        "--panoptic-dir",
        type=Path,
        help="folder of panoptic PNGs; default: beside the annotation file",
    )


def add_readout_options(parser: argparse.ArgumentParser) -> None:
    """Add which features of a region are compared with which class embeddings."""
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=["boxes", "masks"],
        choices=READOUTS,
        metavar="READOUT",
        help=f"of {', '.join(READOUTS)}; default: boxes masks",
    )
    parser.add_argument(
        "--crops", action="store_true", help="also classify every region's crop (slow reference)"
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="exact",
        help="published: every rounding of the original evaluators, to compare with figures in "
        "papers",
    )
    parser.add_argument(
        "--class-embeddings", type=Path, help=".safetensors of `embed`, or .npy; default: computed"
    )
    add_class_options(parser)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Add how class embeddings are computed and kept."""
    parser.add_argument(
        "--templates", choices=TEMPLATE_NAMES, default="vild", help="63 prompts, one, or the name"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of cached class embeddings; default: the user's cache"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="compute class embeddings anew, store nothing"
    )


def add_run_options(parser: argparse.ArgumentParser, batch_size: int = 8) -> None:
    """Add how images are loaded, and where the report goes."""
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help="images per forward pass"
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_argument("--out", type=Path, help="folder for report.json, report.md and figures")

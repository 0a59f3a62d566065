"""Options that several commands of `clim-eval` take, and the format of their help."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from clim_data.command_line import add_option

from clim_eval.commands.shared import PROTOCOLS
from clim_eval.evaluators.regions import READOUTS

# The default of --image-px where regions are read, for the help.
TRAINING_PX = "the size of the training, else 64 patches"

Job = TypeVar("Job")

TEMPLATE_NAMES = ("vild", "photo", "name")


def add_model_options(parser: argparse.ArgumentParser, image_px: str = "") -> None:
    """Add the options of the model and its device.

    `image_px` says the default of --image-px; "" leaves that option out.
    """
    group = parser.add_argument_group("model")
    add_option(group, "--model")
    add_option(group, "--pretrained")
    add_option(
        group,
        "--trust",
        help="believe the model name in the folder of --pretrained, although it may bring code",
    )
    if image_px:
        group.add_argument(
            "--image-px",
            type=int,
            metavar="PX",
            help=f"side of the input in pixels; default: {image_px}",
        )
    add_device_options(group)


def add_device_options(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --precision and --device."""
    add_option(group, "--precision", default="fp32")
    add_option(group, "--device")


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the detector and its device."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="RUN",
        help="run folder of a detector's training (`clim-train fvit_...`), or the folder of an "
        "exported detector",
    )
    add_option(
        group,
        "--trust",
        help="believe the name of the tower in the folder of --checkpoint, although it may bring "
        "code",
    )
    add_option(group, "--device")


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options of a data set with annotated regions."""
    group = parser.add_argument_group("data")
    add_option(
        group,
        "--images",
        required=required,
        help="folder of images, for example val2017, or shards",
    )
    source = group.add_mutually_exclusive_group(required=required)
    add_option(source, "--panoptic-json")
    add_option(source, "--instances-json")
    add_option(
        group,
        "--panoptic-dir",
        help="folder of the segment png files; default: the name of --panoptic-json without .json",
    )


def add_readout_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the features of a region and of the class embeddings."""
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
    add_class_source_options(parser)


def add_class_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the vectors of classes: files, or prompts."""
    source = parser.add_mutually_exclusive_group()
    add_vocabulary_option(source, "; each class of the data needs an entry")
    source.add_argument(
        "--class-embeddings",
        type=Path,
        metavar="FILE",
        help=".safetensors of `embed`, or .npy; default: computed",
    )
    add_class_options(parser)


def add_vocabulary_option(
    parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup, more: str = ""
) -> None:
    """Add --vocabulary."""
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="JSON",
        help="names with phrases, example pictures and what they are not" + more,
    )


def add_template_option(parser: argparse.ArgumentParser) -> None:
    """Add --templates."""
    parser.add_argument(
        "--templates",
        choices=TEMPLATE_NAMES,
        default="vild",
        help="63 prompts, one prompt, or the name alone",
    )


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of computing and caching class embeddings."""
    add_template_option(parser)
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of cached class embeddings; default: the user's cache",
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="compute class embeddings anew, store nothing"
    )


def add_run_options(parser: argparse.ArgumentParser, batch_size: int = 8) -> None:
    """Add the options of loading images, and of the report."""
    add_option(parser, "--batch-size", default=batch_size)
    add_option(parser, "--workers", default=0)
    add_option(parser, "--out", metavar="DIR", help="folder for report.json, report.md and figures")


def options_of_job(kind: type[Job], options: argparse.Namespace, **more: Any) -> Job:
    """Make the options object of a job from the options of the command line that have its names.

    Args:
        kind: a dataclass, which checks itself.
        options: of the command line.
        more: fields that have another value there, or none.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    chosen = {name: getattr(options, name) for name in known if hasattr(options, name)}
    return kind(**{**chosen, **more})

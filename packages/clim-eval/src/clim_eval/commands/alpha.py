"""`clim-eval alpha`: a training at several weight interpolations."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option

from clim_eval.commands.options import (
    TRAINING_PX,
    add_data_options,
    add_device_options,
    add_readout_options,
    add_run_options,
)


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "alpha",
        run,
        "evaluate a training at several weight interpolations",
        description="Evaluate a training at several weight interpolations. Without --templates, "
        "class names are embedded as the run's own evaluations did it, or with vild.",
    )
    _add_weights_options(parser)
    add_device_options(parser)
    add_data_options(parser, required=False)
    add_readout_options(parser)
    parser.set_defaults(templates=None)  # those of the run, if it says any
    _add_image_options(parser)
    parser.add_old_spelling("--caption-images", "--retrieval-images")
    parser.add_old_spelling("--zeroshot-images", "--class-images")
    parser.add_old_spelling("--zeroshot-names", "--names")
    parser.add_argument(
        "--keep-gb",
        type=float,
        metavar="GB",
        default=4,
        help="gigabytes of decoded images that each process keeps between alphas",
    )
    add_run_options(parser)


def _add_weights_options(parser: ArgumentParser) -> None:
    """Add the options of the mixed weights."""
    parser.add_argument(
        "run_folder", nargs="?", type=Path, metavar="RUN", help="run folder of an exported training"
    )
    parser.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        metavar="ALPHA",
        default=[0, 0.3, 0.5, 0.7, 1],
        help="0: start, 1: trained",
    )
    parser.add_argument("--student", help="instead of RUN: trained checkpoint")
    parser.add_argument(
        "--teacher",
        help="instead of RUN: checkpoint, or open_clip tag, that the training started from",
    )
    add_option(parser, "--model")
    add_option(
        parser,
        "--trust",
        help="believe the model name in the folder of RUN, --student or --teacher, although it "
        "may bring code",
    )
    parser.add_argument(
        "--image-px",
        type=int,
        metavar="PX",
        help=f"side of the input for regions; default: {TRAINING_PX}",
    )


def _add_image_options(parser: ArgumentParser) -> None:
    """Add the options of the data for retrieval and zero-shot classification."""
    group = parser.add_argument_group("image-level data")
    add_option(group, "--captions-json", help="COCO captions json, for retrieval")
    group.add_argument(
        "--retrieval-images",
        metavar="SOURCE",
        help="folder or shards with the images of --captions-json; default: --images",
    )
    group.add_argument(
        "--class-images",
        type=Path,
        metavar="SOURCE",
        help="for zero-shot classification: folder with a folder for each class, or shards",
    )
    add_option(
        group,
        "--names",
        help="text file with the classes of --class-images, one per line; default: names of the "
        "folders",
    )


def run(options: Namespace) -> None:
    """Run the command."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_eval.commands.sweep import run_alpha

    run_alpha(options)

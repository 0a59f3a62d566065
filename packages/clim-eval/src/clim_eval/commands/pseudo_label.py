"""`clim-eval pseudo-label`: names for boxes that have none."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option

from clim_eval.commands.options import (
    TRAINING_PX,
    add_class_options,
    add_model_options,
    add_vocabulary_option,
    options_of_job,
)
from clim_eval.evaluators.regions import BOX_FEATURES


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "pseudo-label",
        run,
        "name class-agnostic boxes with nouns",
    )
    add_model_options(parser, TRAINING_PX + " (for features of whole images)")
    group = parser.add_argument_group("data")
    add_option(group, "--images", nargs="+", required=True)
    add_option(
        group,
        "--boxes",
        required=True,
        help="COCO json of proposals; their categories do not count",
    )
    words = group.add_mutually_exclusive_group(required=True)
    words.add_argument(
        "--nouns",
        type=Path,
        metavar="FILE",
        help="text file with one per line, or embeddings of `embed`",
    )
    add_vocabulary_option(words)
    captions = group.add_mutually_exclusive_group()
    add_option(
        captions,
        "--captions-json",
        help="COCO captions json; default: captions that come with the images",
    )
    captions.add_argument(
        "--no-captions", action="store_true", help="choose among all nouns for every image"
    )
    add_choice_options(parser)
    add_class_options(parser)
    add_work_options(parser)
    add_option(
        parser,
        "--out",
        required=True,
        metavar="JSON",
        help="COCO json to write",
        old=["--output"],
    )


def add_choice_options(parser: ArgumentParser) -> None:
    """Add the rules for boxes, and for the choice of a name."""
    parser.add_argument(
        "--min-box-px",
        type=float,
        default=8,
        metavar="PX",
        help="smallest square root of a box's area",
    )
    parser.add_argument(
        "--max-box-px",
        type=float,
        default=1024,
        metavar="PX",
        help="largest square root of a box's area",
    )
    parser.add_argument(
        "--features",
        choices=BOX_FEATURES,
        default="crops",
        help="crops: each box as an image of its own, what an untrained CLIP names best; "
        "boxes...: of the dense map",
    )
    parser.add_argument(
        "--context",
        type=float,
        default=1.5,
        metavar="TIMES",
        help="size of a crop in sizes of its box",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="least probability of the noun among all nouns",
    )
    parser.add_argument(
        "--max-boxes",
        type=int,
        default=20,
        metavar="N",
        help="boxes per image, those with the best scores",
    )


def add_work_options(parser: ArgumentParser) -> None:
    """Add the options of parts and processes."""
    add_option(
        parser, "--batch-size", help="crops (default 256) or whole images (8) per forward pass"
    )
    add_option(parser, "--workers", default=0)
    add_option(parser, "--part-images", default=512)
    add_option(parser, "--patience", default=1800)
    add_option(parser, "--overwrite")


def run(options: Namespace) -> None:
    """Name the boxes of all images."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_eval.labelling.options import PseudoLabelOptions
    from clim_eval.labelling.run import pseudo_label

    pseudo_label(options_of_job(PseudoLabelOptions, options, images=tuple(options.images)))

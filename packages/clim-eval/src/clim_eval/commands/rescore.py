"""`clim-eval rescore`: scores of any detector, combined with a CLIP's scores of its boxes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option

from clim_eval.commands.options import (
    TRAINING_PX,
    add_class_source_options,
    add_model_options,
    options_of_job,
)
from clim_eval.commands.shared import class_source, print_coverage
from clim_eval.evaluators.regions import BOX_FEATURES


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "rescore",
        run,
        "combine the scores of any detector with a CLIP's similarity of boxes and class names",
        description="Write the results of a detector with new scores: the weighted geometric mean "
        "of its score, of the probability of the box's class by a CLIP, and of the IoU that it "
        "predicts, if it does.",
    )
    add_model_options(parser, TRAINING_PX + " (for features of whole images)")
    group = parser.add_argument_group("data")
    group.add_argument(
        "--detections",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO results: a list of image_id, category_id, bbox, score",
    )
    group.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO json whose images and categories the results belong to",
    )
    add_option(group, "--images", type=Path, required=True, metavar="DIR", help="folder of images")
    _add_score_options(parser)
    add_class_source_options(parser)
    add_option(
        parser, "--batch-size", help="crops (default 256) or whole images (8) per forward pass"
    )
    add_option(parser, "--workers", default=0)
    add_option(parser, "--part-images", default=128)
    add_option(parser, "--patience", default=1800)
    add_option(parser, "--overwrite")
    add_option(parser, "--out", required=True, metavar="JSON", help="COCO results to write")


def _add_score_options(parser: ArgumentParser) -> None:
    """Add the weights of the scores."""
    parser.add_argument(
        "--weight",
        type=float,
        default=0.35,
        metavar="SHARE",
        help="of the CLIP's probability in the geometric mean; 0 leaves the scores, 1 takes the "
        "CLIP's alone",
    )
    parser.add_argument(
        "--iou-weight",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the IoU that the detector predicts",
    )
    parser.add_argument(
        "--iou-field", default="iou", metavar="NAME", help="field of the results with that IoU"
    )
    parser.add_argument(
        "--features",
        choices=BOX_FEATURES,
        default="boxes",
        help="boxes...: of the dense map; crops: each box as an image of its own",
    )
    parser.add_argument(
        "--context",
        type=float,
        default=1.5,
        metavar="TIMES",
        help="size of a crop in sizes of its box",
    )


def run(options: Namespace) -> None:
    """Write results with new scores."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_eval.detection.options import RescoreOptions
    from clim_eval.detection.rescore import rescore_detections

    job = options_of_job(RescoreOptions, options, classes=class_source(options))
    done = rescore_detections(job)
    if done is None:
        return
    written, coverage = done
    print_coverage(coverage)
    print(f"detections with new scores: {written.path}")

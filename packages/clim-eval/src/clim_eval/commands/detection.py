"""`clim-eval detection`: average precision of a detector, or of a file of results."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line import CommandParser, Commands, add_command, add_option
from clim_data.files import read_names

from clim_eval.commands.options import add_class_source_options, options_of_job
from clim_eval.commands.shared import check_report_folder, class_source, print_coverage
from clim_eval.metrics.detection import ALL_PROTOCOLS
from clim_eval.metrics.tables import IOU_TYPES


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "detection",
        run,
        "average precision of a detector on COCO, LVIS and their open-vocabulary splits",
        description="Run a detector over the images of an annotation file and compute its average "
        "precision: AP50 of base and novel classes (OV-COCO), AP by frequency and fixed AP (LVIS), "
        "AP of COCO. Without a detector, --detections scores the results of any other one.",
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="run folder of a detector's training (`clim-train fvit_...`), or the folder of an "
        "exported detector",
    )
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="JSON",
        help="COCO results of any detector, in place of RUN",
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, metavar="JSON", help="COCO or LVIS json"
    )
    add_option(parser, "--images", type=Path, metavar="DIR", help="folder of its images")
    _add_rules(parser)
    add_class_source_options(parser)
    add_option(
        parser,
        "--trust",
        help="believe the name of the tower in the folder of RUN, although it may bring code",
    )
    add_option(parser, "--device")
    add_option(parser, "--batch-size", default=4)
    add_option(parser, "--workers", default=0)
    add_option(parser, "--part-images", default=128)
    add_option(parser, "--patience", default=1800)
    add_option(parser, "--overwrite")
    add_option(parser, "--out", metavar="DIR", help="folder for detections.json and the report")


def _add_rules(parser: CommandParser) -> None:
    """Add the options that say how detections are scored."""
    parser.add_argument(
        "--protocol",
        choices=ALL_PROTOCOLS,
        help="fvit: base and novel classes on a file of both; ovdet: the same on all pictures; "
        "default: what the annotation file is made for",
    )
    parser.add_argument("--base", type=Path, metavar="TXT", help="names of base classes, by line")
    parser.add_argument("--novel", type=Path, metavar="TXT", help="names of novel classes, by line")
    parser.add_argument(
        "--iou-types",
        nargs="+",
        choices=IOU_TYPES,
        help="boxes, masks or both; default: what the detections have",
    )
    parser.add_argument(
        "--transfer",
        choices=("coco", "other"),
        help="judge an F-ViT of another data set by the paper's rule of scores: on COCO, or on "
        "others such as Objects365 and VOC",
    )


def run(options: Namespace) -> None:
    """Score a detector."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_eval.detection.options import DetectionOptions, ProtocolOptions
    from clim_eval.detection.run import evaluate_detections
    from clim_eval.reports.tables import metric_table

    check_report_folder(options.out)
    protocol = ProtocolOptions(
        protocol=options.protocol,
        base=tuple(read_names(options.base, "--base")) if options.base else None,
        novel=tuple(read_names(options.novel, "--novel")) if options.novel else None,
        iou_types=tuple(options.iou_types) if options.iou_types else None,
    )
    job = options_of_job(
        DetectionOptions, options, classes=class_source(options), protocol=protocol
    )
    report = evaluate_detections(job)
    if report is None:
        return
    print(metric_table(report.scores.metrics))
    print_coverage(report.coverage)
    print(f"detections: {report.results}")
    if options.out:
        print(f"report: {options.out / 'report.md'}")

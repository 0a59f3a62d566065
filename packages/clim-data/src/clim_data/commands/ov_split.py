"""`clim-data ov-split`: the jsons of OV-COCO and OV-LVIS."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line.parser import Commands, add_command
from clim_data.command_line.vocabulary import add_option
from clim_data.files.outputs import check_output_folder
from clim_data.processes.ranks import Ranks


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands,
        "ov-split",
        run,
        "write the training and validation jsons of OV-COCO (48/17) and OV-LVIS (866/337)",
        description="Write a training json with the boxes of the base classes, and a validation "
        "json with the boxes of all classes.",
    )
    command.add_argument("kind", choices=("coco", "lvis"), help="which split")
    command.add_argument(
        "--train", type=Path, metavar="JSON", help="instances_train2017.json or lvis_v1_train.json"
    )
    command.add_argument(
        "--val", type=Path, metavar="JSON", help="instances_val2017.json or lvis_v1_val.json"
    )
    add_option(
        command,
        "--out",
        required=True,
        metavar="DIR",
        help="folder for ov_KIND_train.json and ov_KIND_val.json",
        old=["--output"],
    )
    command.add_argument(
        "--keep-empty", action="store_true", help="keep images without a box of the written classes"
    )
    command.add_argument(
        "--allow-partial", action="store_true", help="accept a file that lacks some classes"
    )


def run(options: Namespace) -> None:
    """Write the files and print their counts; ranks other than the first do nothing."""
    from clim_data.derive.ov_split import write_ov_split

    if options.train is None and options.val is None:
        raise ValueError("there is nothing to split: give --train, --val or both")
    check_output_folder(options.out, "--out")
    if not Ranks.of_launcher().is_first:
        return

    for side, path, classes in (("train", options.train, "base"), ("val", options.val, "all")):
        if path is None:
            continue
        report = write_ov_split(
            f"ov-{options.kind}",
            path,
            options.out / f"ov_{options.kind}_{side}.json",
            classes=classes,
            keep_empty=options.keep_empty,
            allow_partial=options.allow_partial,
        )
        print(report)
        if report.skipped.total:
            print(report.skipped.summary())

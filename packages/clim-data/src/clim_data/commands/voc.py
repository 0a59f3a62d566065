"""`clim-data voc`: Pascal VOC's annotations as a COCO json."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line.parser import Commands, add_command
from clim_data.command_line.vocabulary import add_option
from clim_data.processes.ranks import Ranks


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands,
        "voc",
        run,
        "write the XML annotations of Pascal VOC as a COCO json",
        description="Write the boxes of a split of Pascal VOC as a COCO json, for `clim-eval "
        "detection`. Difficult objects become crowd regions, which do not count.",
    )
    command.add_argument("root", type=Path, metavar="YEAR", help="such as VOCdevkit/VOC2007")
    add_option(command, "--split", default="test", metavar="NAME", help="list in ImageSets/Main")
    add_option(command, "--out", required=True, metavar="JSON", help="file to write")


def run(options: Namespace) -> None:
    """Write the file and print what is in it; ranks other than the first do nothing."""
    from clim_data.derive.voc import write_voc_json

    if not Ranks.of_launcher().is_first:
        return
    report = write_voc_json(options.root, options.split, options.out)
    print(report)
    if report.skipped.total:
        print(report.skipped.summary())

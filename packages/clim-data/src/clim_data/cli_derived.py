"""The commands that make files out of official data: `clim-data ov-split`."""

import argparse
from pathlib import Path


def add_commands(commands) -> None:
    """Add the commands to the subparsers of `clim-data`."""
    _ov_split_command(commands)


def _ov_split_command(commands) -> None:
    command = commands.add_parser(
        "ov-split",
        help="write the training and validation jsons of OV-COCO (48/17) and OV-LVIS (866/337)",
        description="Training json with the boxes of the base classes, validation json with those of all classes.",
    )
    command.add_argument("kind", choices=("coco", "lvis"))
    command.add_argument("--train", metavar="JSON", help="instances_train2017.json or lvis_v1_train.json")
    command.add_argument("--val", metavar="JSON", help="instances_val2017.json or lvis_v1_val.json")
    command.add_argument("--output", required=True, metavar="DIR", help="folder for ov_KIND_{train,val}.json")
    command.add_argument("--keep-empty", action="store_true", help="keep images without a box of the written classes")
    command.add_argument("--allow-partial", action="store_true", help="accept a file that has not all classes")
    command.set_defaults(run=_ov_split)


def _ov_split(args: argparse.Namespace) -> int:
    from clim_data.ov_split import write_ov_split

    sides = {"train": (args.train, "base"), "val": (args.val, "all")}
    if not any(path for path, _ in sides.values()):
        raise ValueError("there is nothing to split: give --train, --val or both")
    for side, (path, classes) in sides.items():
        if path:
            report = write_ov_split(
                f"ov-{args.kind}",
                path,
                Path(args.output) / f"ov_{args.kind}_{side}.json",
                classes=classes,
                keep_empty=args.keep_empty,
                allow_partial=args.allow_partial,
            )
            print(report)
    return 0

"""The commands that make files out of images and official annotations: `clim-data proposals`,
`nouns` and `ov-split`."""

import argparse
import os
from pathlib import Path
from typing import Any

from clim_data.processes.ranks import Ranks


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the subparsers of `clim-data`."""
    _proposals_command(commands)
    _nouns_command(commands)
    _ov_split_command(commands)


def _proposals_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "proposals",
        help="find class-agnostic boxes in images, as a COCO json",
        description="Class-agnostic boxes as a COCO json: searched in images, or taken from a detector's results. A "
        "killed run goes on when started again; started by the deepspeed launcher, the ranks share "
        "the images.",
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", nargs="+", metavar="SOURCE", help="folder of images, or shards")
    source.add_argument(
        "--from", dest="results", metavar="JSON", help="COCO results [{image_id, bbox, score}]"
    )
    command.add_argument(
        "--annotations", metavar="JSON", help="COCO json: its images only, with their ids and names"
    )
    command.add_argument("--output", required=True, metavar="JSON")
    command.add_argument(
        "--method", choices=("selective-search", "rpn"), help="default: selective-search"
    )
    for option, kind, what in (
        ("--top", int, "boxes an image (50)"),
        ("--min-score", float, "leave out worse boxes (none)"),
        ("--nms", float, "of two boxes with a larger IoU keep the better; 1 keeps all (0.7)"),
        ("--min-px", float, "smallest width and height in pixels (8)"),
        ("--search-px", int, "selective search: longest side at which images are searched (320)"),
        ("--detector", str, "rpn: a detector of torchvision (fasterrcnn_resnet50_fpn)"),
        (
            "--weights",
            str,
            'rpn: state dict of the detector, or "default" for torchvision\'s (default)',
        ),
        ("--device", str, "rpn: such as cuda:0 (the GPU if there is one)"),
        ("--batch-size", int, "rpn: images at a time (4)"),
        (
            "--workers",
            int,
            "processes, for rpn decoding threads (the number of cores, shared by the ranks)",
        ),
        ("--part-images", int, "images whose boxes are stored at once (a 64th of all, at most 64)"),
        (
            "--patience",
            float,
            "seconds without a new part after which rank 0 names the missing ranks (1800)",
        ),
    ):
        command.add_argument(option, type=kind, help=what)
    command.add_argument(
        "--quality", action="store_true", default=None, help="selective search: slow settings"
    )
    command.add_argument(
        "--on-error", choices=("skip", "raise"), help="images that cannot be read (skip)"
    )
    command.add_argument(
        "--overwrite", action="store_true", default=None, help="replace an output of other options"
    )
    command.set_defaults(run=_proposals)


def _proposals(args: argparse.Namespace) -> int:
    from clim_data.derive.proposal_boxes import BoxChoice
    from clim_data.derive.proposals import convert_results, find_proposals

    choice = BoxChoice(**_given(args, "top", "min_score", "nms", "min_px"))
    searching = ("workers", "part_images", "patience", "on_error", "overwrite")
    rank, world_size = Ranks.of_launcher()
    if args.results:
        of_search = _given(
            args,
            *searching,
            "method",
            *_FINDER_OPTIONS["selective-search"],
            *_FINDER_OPTIONS["rpn"],
        )
        if of_search:
            raise ValueError(
                f"{_flags(of_search)} belong to a search: leave them out, or give --images, not "
                "--from"
            )
        if not args.annotations:
            raise ValueError("--from needs the images of the results: give --annotations JSON")
        if rank:  # reading a file is no work to share
            return 0
        report = convert_results(args.results, args.annotations, args.output, choice=choice)
    else:
        options = {
            "workers": max(1, (os.cpu_count() or 1) // world_size),
            **_given(args, *searching),
        }
        report = find_proposals(
            args.images,
            args.output,
            _finder(args),
            choice=choice,
            annotations=args.annotations,
            rank=rank,
            world_size=world_size,
            **options,
        )
    if not report.complete:
        print(
            f"rank {rank} of {world_size}: {report.images:,} images searched, {report.boxes:,} "
            "boxes"
        )
    elif report.images:
        print(
            f"{report.output}: {report.boxes:,} boxes in {report.images:,} "
            f"images\n{report.skipped.summary()}"
        )
    else:
        print(
            f"{report.output} is there already, of the same input and options; delete it to search "
            "again"
        )
    return 0


_FINDER_OPTIONS = {
    "selective-search": ("search_px", "quality"),
    "rpn": ("detector", "weights", "device", "batch_size"),
}


def _finder(args: argparse.Namespace) -> Any:
    method = args.method or "selective-search"
    (other,) = set(_FINDER_OPTIONS) - {method}
    foreign = _given(args, *_FINDER_OPTIONS[other])
    if foreign:
        raise ValueError(
            f"{_flags(foreign)} belong to --method {other}, not {method}: leave them out"
        )
    options = _given(args, *_FINDER_OPTIONS[method])
    if method == "rpn":
        from clim_data.derive.rpn import RpnBoxes

        return RpnBoxes(**options)
    from clim_data.derive.selective_search import SelectiveSearch

    return SelectiveSearch(**options)


def _given(args: argparse.Namespace, *names: str) -> dict:
    """The options among `names` that were given; the others keep the defaults of the functions."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _flags(options: dict) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in options)


def _nouns_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "nouns",
        help="list the nouns of captions, one a line",
        description="The nouns of captions as a text file, one a line, with a json of their counts beside it.",
    )
    command.add_argument(
        "--captions",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="COCO captions json, txt, jsonl, folder or shards",
    )
    command.add_argument("--output", required=True, metavar="TXT")
    command.add_argument("--min-count", type=int, help="captions that must hold a noun (10)")
    command.add_argument(
        "--min-share", type=float, help="leave out words that are more rarely nouns (0.5)"
    )
    command.add_argument(
        "--compounds", action="store_true", default=None, help='also list pairs, like "teddy bear"'
    )
    command.set_defaults(run=_nouns)


def _nouns(args: argparse.Namespace) -> int:
    from clim_data.derive.nouns import NounRules, write_nouns

    if not Ranks.of_launcher().is_first:
        return 0
    rules = NounRules(**_given(args, "min_count", "min_share", "compounds"))
    report = write_nouns(args.captions, args.output, rules=rules)
    first = ", ".join(list(report.counts)[:10])
    print(
        f"{report.output}: {len(report.counts):,} nouns of {report.captions:,} captions: {first}, "
        "..."
    )
    print(report.skipped.summary())
    return 0


def _ov_split_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "ov-split",
        help="write the training and validation jsons of OV-COCO (48/17) and OV-LVIS (866/337)",
        description="Training json with the boxes of the base classes, validation json with those of all classes.",
    )
    command.add_argument("kind", choices=("coco", "lvis"))
    command.add_argument(
        "--train", metavar="JSON", help="instances_train2017.json or lvis_v1_train.json"
    )
    command.add_argument("--val", metavar="JSON", help="instances_val2017.json or lvis_v1_val.json")
    command.add_argument(
        "--output", required=True, metavar="DIR", help="folder for ov_KIND_{train,val}.json"
    )
    command.add_argument(
        "--keep-empty", action="store_true", help="keep images without a box of the written classes"
    )
    command.add_argument(
        "--allow-partial", action="store_true", help="accept a file that has not all classes"
    )
    command.set_defaults(run=_ov_split)


def _ov_split(args: argparse.Namespace) -> int:
    from clim_data.derive.ov_split import write_ov_split

    sides = {"train": (args.train, "base"), "val": (args.val, "all")}
    if not any(path for path, _ in sides.values()):
        raise ValueError("there is nothing to split: give --train, --val or both")
    if not Ranks.of_launcher().is_first:
        return 0
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

"""Command line: `clim-data pack KIND ...`, `clim-data doctor ROOT`, and the commands of
`derive`."""

import argparse
import os
import sys
from collections.abc import Sequence

from clim_data import doctor
from clim_data.command_line import run_command, without_launcher_options
from clim_data.commands import derive
from clim_data.datasets import PARTS
from clim_data.sources import items
from clim_data.sources.write import write_shards
from clim_data.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`; 1 also when `doctor` misses
    something."""
    options = _parser().parse_args(without_launcher_options(sys.argv[1:] if argv is None else argv))
    return run_command("clim-data", options.run, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clim-data", description="Shards and checks for region training of CLIP."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    packer = commands.add_parser(
        "pack", help="write webdataset shards", description="Write webdataset shards."
    )
    kinds = packer.add_subparsers(dest="kind", required=True)
    for kind, listing, what in (
        ("coco-captions", _caption_listing, "COCO captions json"),
        ("cc3m", _caption_listing, 'json {"images": [{"id", "file_name", "captions": [...]}]}'),
        ("coco-instances", _instance_listing, "COCO instances json"),
        ("lvis", _instance_listing, "LVIS v1 json"),
        ("coco-panoptic", _panoptic_listing, "COCO panoptic json"),
    ):
        command = _pack_command(kinds, kind, listing)
        command.add_argument(
            "--images", required=True, metavar="DIR", help="folder of the image files"
        )
        command.add_argument("--annotations", required=True, metavar="JSON", help=what)
        if listing is _instance_listing:
            command.add_argument(
                "--captions", nargs="*", default=(), metavar="JSON", help="captions to add"
            )
        if listing is _panoptic_listing:
            command.add_argument(
                "--panoptic", required=True, metavar="DIR", help="folder of the segment png files"
            )
    command = _pack_command(kinds, "folder", _folder_listing)
    command.add_argument(
        "--images", required=True, metavar="DIR", help="folder of images, with a txt beside each"
    )
    command.add_argument(
        "--captions", metavar="FILE", help="json or jsonl with the captions of all files instead"
    )
    _grounding_commands(kinds)
    _doctor_command(commands)
    derive.add_commands(commands)
    return parser


def _pack_command(kinds, kind: str, listing) -> argparse.ArgumentParser:
    command = kinds.add_parser(kind, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_argument("--output", required=True, metavar="DIR", help="folder for the shards")
    command.add_argument("--name", help="first part of the shards' names (default: the kind)")
    command.add_argument("--samples-per-shard", type=int, default=1000)
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    command.add_argument(
        "--check-images", action="store_true", help="decode every image, not only its header"
    )
    command.add_argument("--on-error", choices=("skip", "raise"), default="skip")
    command.add_argument(
        "--overwrite", action="store_true", help="replace another pack in the folder"
    )
    command.set_defaults(run=_pack, listing=listing)
    return command


def _grounding_commands(kinds) -> None:
    command = _pack_command(kinds, "png", _narrative_listing)
    command.add_argument("--images", required=True, metavar="DIR", help="folder of COCO images")
    command.add_argument(
        "--annotations", required=True, metavar="JSON", help="Panoptic Narrative Grounding json"
    )
    command.add_argument(
        "--panoptic-json",
        required=True,
        metavar="JSON",
        help="COCO panoptic json of the same split",
    )
    command.add_argument(
        "--panoptic", required=True, metavar="DIR", help="folder of the segment png files"
    )
    command = _pack_command(kinds, "refcoco", _expression_listing)
    command.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="folder of COCO images, train2014 or train2017",
    )
    command.add_argument(
        "--refs",
        required=True,
        metavar="FILE",
        help="refs(unc).p, refs(umd).p, refs(google).p or json",
    )
    command.add_argument(
        "--annotations", required=True, metavar="JSON", help="instances.json of the set"
    )
    command.add_argument("--split", required=True, help="train, val, testA, testB or test")
    command.add_argument(
        "--text", choices=("raw", "sent"), default="raw", help="sentences as typed, or cleaned"
    )
    command.add_argument(
        "--bad-masks",
        choices=("skip", "empty"),
        default="skip",
        help="objects without a valid polygon",
    )


def _doctor_command(commands) -> None:
    command = commands.add_parser("doctor", help="say which data sets are whole, broken or missing")
    command.add_argument("root", help="folder that holds the data sets")
    command.add_argument(
        "--need",
        nargs="+",
        default=(),
        metavar="PART",
        help=f"exit 0 only if these are complete: {', '.join(PARTS)}",
    )
    command.add_argument("--check-images", action="store_true", help="decode every image (minutes)")
    command.add_argument(
        "--check-json",
        action="store_true",
        help="parse every annotation file and count its entries",
    )
    command.add_argument("--json", action="store_true", help="print the findings as json")
    command.set_defaults(run=_doctor)


def _caption_listing(args) -> items.PackList:
    return items.caption_items(args.images, args.annotations, kind=args.kind)


def _instance_listing(args) -> items.PackList:
    return items.instance_items(
        args.images, args.annotations, captions_json=args.captions, kind=args.kind
    )


def _panoptic_listing(args) -> items.PackList:
    return items.panoptic_items(args.images, args.annotations, args.panoptic)


def _folder_listing(args) -> items.PackList:
    return items.folder_items(args.images, captions_file=args.captions)


def _narrative_listing(args) -> items.PackList:
    from clim_data.readers.narratives import narrative_items  # brings torch

    return narrative_items(args.images, args.annotations, args.panoptic_json, args.panoptic)


def _expression_listing(args) -> items.PackList:
    from clim_data.readers.expressions import expression_items  # brings torch

    options = {"split": args.split, "text": args.text, "bad_masks": args.bad_masks}
    return expression_items(args.images, args.refs, args.annotations, **options)


def _pack(args) -> int:
    report = write_shards(
        args.listing(args),
        args.output,
        name=args.name or args.kind,
        samples_per_shard=args.samples_per_shard,
        workers=args.workers,
        check_images=args.check_images,
        on_error=args.on_error,
        overwrite=args.overwrite,
    )
    print(
        f"{report.folder}: {report.samples:,} samples in {report.shards:,} shards "
        f"({report.bytes / 1e6:,.1f} MB), "
        f"{report.written:,} written now, {report.shards - report.written:,} were there"
    )
    print(report.skipped.summary())
    return 0


def _doctor(args) -> int:
    found = doctor.diagnose(
        args.root, args.need, check_images=args.check_images, check_json=args.check_json
    )
    print(doctor.to_json(found) if args.json else doctor.to_text(found))
    return 1 if args.need and not all(part.complete for part in found) else 0


if __name__ == "__main__":
    sys.exit(main())

"""`clim-data pack KIND`: images and annotations to webdataset shards."""

from argparse import Namespace
from collections.abc import Callable

from clim_data.command_line.parser import CommandParser, Commands, add_command
from clim_data.command_line.threads import usable_cpus
from clim_data.command_line.vocabulary import add_option
from clim_data.files.outputs import check_output_folder
from clim_data.sources import items
from clim_data.sources.expand import refuse_shards
from clim_data.sources.items import PackList
from clim_data.sources.write import write_shards

Listing = Callable[[Namespace], PackList]


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    text = "write webdataset shards"
    packer = commands.add_parser("pack", help=text, description=text)
    kinds = packer.add_subparsers(dest="kind", required=True)
    _add_caption_kinds(kinds)
    _add_region_kinds(kinds)
    _add_folder(kinds)
    _add_narratives(kinds)
    _add_expressions(kinds)


def run(options: Namespace) -> None:
    """Write the shards and print their counts."""
    refuse_shards(options.images)
    check_output_folder(options.out, "--out")
    report = write_shards(
        options.listing(options),
        options.out,
        name=options.name or options.kind,
        samples_per_shard=options.samples_per_shard,
        workers=options.workers,
        check_images=options.check_images,
        on_error=options.on_error,
        overwrite=options.overwrite,
    )
    print(
        f"{report.folder}: {report.samples:,} samples in {report.shards:,} shards "
        f"({report.bytes / 1e6:,.1f} MB), "
        f"{report.written:,} written now, {report.shards - report.written:,} were there"
    )
    print(report.skipped.summary())


# -- kinds of annotations ----------------------------------------------------------------------


def _add_caption_kinds(kinds: Commands) -> None:
    about = {
        "coco-captions": "COCO captions json",
        "cc3m": 'json {"images": [{"id", "file_name", "captions": [...]}]}',
    }
    for kind, what in about.items():
        command = _add_kind(kinds, kind, f"images with the captions of a {what}", _list_captions)
        _add_images(command)
        add_option(command, "--captions-json", help=what, required=True, old=["--annotations"])


def _add_region_kinds(kinds: Commands) -> None:
    for kind, what in (("coco-instances", "COCO instances json"), ("lvis", "LVIS v1 json")):
        command = _add_kind(kinds, kind, f"images with the boxes of a {what}", _list_instances)
        _add_images(command)
        add_option(command, "--instances-json", help=what, required=True, old=["--annotations"])
        add_option(
            command,
            "--captions-json",
            nargs="*",
            default=(),
            help="COCO captions json whose captions are added",
            old=["--captions"],
        )

    command = _add_kind(kinds, "coco-panoptic", "images with panoptic segments", _list_panoptic)
    _add_images(command)
    add_option(command, "--panoptic-json", required=True, old=["--annotations"])
    add_option(command, "--panoptic-dir", required=True, old=["--panoptic"])


def _add_folder(kinds: Commands) -> None:
    command = _add_kind(kinds, "folder", "a folder of images with captions", _list_folder)
    _add_images(
        command,
        "folder of images, with a txt file next to each, a metadata.jsonl or a metadata.csv",
    )
    add_option(
        command,
        "--captions-json",
        help="json, jsonl or csv with the captions of all images, in place of these files",
        old=["--captions"],
    )


def _add_narratives(kinds: Commands) -> None:
    command = _add_kind(kinds, "png", "Panoptic Narrative Grounding", _list_narratives)
    _add_images(command, "folder of COCO images")
    add_option(command, "--narratives-json", required=True, old=["--annotations"])
    add_option(
        command, "--panoptic-json", required=True, help="COCO panoptic json of the same split"
    )
    add_option(command, "--panoptic-dir", required=True, old=["--panoptic"])


def _add_expressions(kinds: Commands) -> None:
    command = _add_kind(kinds, "refcoco", "RefCOCO, RefCOCO+ and RefCOCOg", _list_expressions)
    _add_images(command, "folder of COCO images, train2014 or train2017")
    add_option(command, "--refs", required=True)
    add_option(
        command,
        "--instances-json",
        required=True,
        help="instances.json of the set",
        old=["--annotations"],
    )
    add_option(command, "--split", required=True)
    command.add_argument(
        "--text",
        choices=("raw", "sent"),
        default="raw",
        help="sentences as people typed them, or cleaned",
    )
    command.add_argument(
        "--bad-masks",
        choices=("skip", "empty"),
        default="skip",
        help="objects without a valid polygon: skip them, or give them an empty mask",
    )


def _add_kind(kinds: Commands, kind: str, text: str, listing: Listing) -> CommandParser:
    """Add a kind of annotations with the options that all kinds have."""
    command = add_command(kinds, kind, run, text)
    add_option(command, "--out", required=True, help="folder for the shards", old=["--output"])
    command.add_argument("--name", help="beginning of the shards' names; default: the kind")
    command.add_argument(
        "--samples-per-shard", type=int, default=1000, metavar="N", help="samples in a shard"
    )
    add_option(command, "--workers", default=usable_cpus(), help="processes that read images")
    command.add_argument(
        "--check-images", action="store_true", help="decode every image, not only its header"
    )
    add_option(command, "--on-error", default="skip")
    add_option(command, "--overwrite", help="replace another pack in the folder")
    command.set_defaults(listing=listing, continues=True)
    return command


def _add_images(command: CommandParser, text: str = "folder of the image files") -> None:
    add_option(command, "--images", required=True, help=text, metavar="DIR")


# -- samples of each kind ----------------------------------------------------------------------


def _list_captions(options: Namespace) -> PackList:
    return items.caption_items(options.images, options.captions_json, kind=options.kind)


def _list_instances(options: Namespace) -> PackList:
    return items.instance_items(
        options.images,
        options.instances_json,
        captions_json=options.captions_json,
        kind=options.kind,
    )


def _list_panoptic(options: Namespace) -> PackList:
    return items.panoptic_items(options.images, options.panoptic_json, options.panoptic_dir)


def _list_folder(options: Namespace) -> PackList:
    return items.folder_items(
        options.images, captions_file=options.captions_json, written=options.out
    )


def _list_narratives(options: Namespace) -> PackList:
    # Imported here: it brings torch, which takes seconds that `--help` need not wait for.
    from clim_data.readers.narratives import narrative_items

    return narrative_items(
        options.images, options.narratives_json, options.panoptic_json, options.panoptic_dir
    )


def _list_expressions(options: Namespace) -> PackList:
    # Imported here: it brings torch, which takes seconds that `--help` need not wait for.
    from clim_data.readers.expression_items import expression_items

    return expression_items(
        options.images,
        options.refs,
        options.instances_json,
        split=options.split,
        text=options.text,
        bad_masks=options.bad_masks,
    )

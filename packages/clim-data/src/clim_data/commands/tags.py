"""`clim-data tags`: the classes that captions name."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line.checks import given
from clim_data.command_line.parser import Commands, add_command
from clim_data.command_line.vocabulary import add_option
from clim_data.processes.ranks import Ranks


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands,
        "tags",
        run,
        "write captions and the classes that they name, for Detic + CLIM",
        description="Write a json of images with their captions and tags: the classes of which a "
        "name or a synonym is in a caption.",
    )
    add_option(
        command,
        "--captions-json",
        metavar="FILE",
        help="COCO captions or a CC3M-style json, or a jsonl or tsv of captions by file name",
    )
    add_option(command, "--images", help="folder of images, or shards, which have captions")
    command.add_argument(
        "--classes",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO or LVIS json with the categories",
    )
    add_option(command, "--out", required=True, metavar="JSON", help="file to write")
    command.add_argument(
        "--synonyms", type=Path, metavar="JSON", help="names of classes, {class: [name, ...]}"
    )
    command.add_argument(
        "--rule",
        choices=("words", "original"),
        help="words compares words, with plurals and punctuation; original is the comparison of "
        "letters of Detic's tool; default: words",
    )
    command.add_argument(
        "--first-caption",
        action="store_true",
        default=None,
        help="read only the first caption of each image",
    )
    command.add_argument(
        "--keep-untagged", action="store_true", default=None, help="write images without a tag, too"
    )
    command.add_argument(
        "--file-names",
        metavar="PATTERN",
        help='names of the images of a tsv that has addresses, such as "{:08d}.jpg"; lines count '
        "from 0",
    )


def run(options: Namespace) -> None:
    """Write the file and print its counts; ranks other than the first do nothing."""
    from clim_data.derive.tag_files import TagOptions, write_tags

    sources = [one for one in (options.captions_json, options.images) if one is not None]
    if len(sources) != 1:
        raise ValueError("which captions? pass --captions-json FILE or --images SOURCE")
    names = ("rule", "first_caption", "keep_untagged", "file_names")
    rules = TagOptions(**given(options, *names))
    if not Ranks.of_launcher().is_first:
        return

    report = write_tags(
        sources[0],
        options.out,
        classes=options.classes,
        synonyms=options.synonyms,
        options=rules,
    )
    print(report)
    print(report.skipped.summary())

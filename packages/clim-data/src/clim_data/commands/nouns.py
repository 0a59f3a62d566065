"""`clim-data nouns`: the nouns of captions as a list."""

from argparse import Namespace

from clim_data.command_line.checks import given
from clim_data.command_line.parser import Commands, add_command
from clim_data.command_line.vocabulary import add_option
from clim_data.processes.ranks import Ranks


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands,
        "nouns",
        run,
        "list the nouns of captions, one per line",
        description="Write the nouns of captions to a text file, one per line, and a json file "
        "with their counts next to it.",
    )
    add_option(
        command,
        "--captions-json",
        nargs="+",
        default=[],
        metavar="FILE",
        help="COCO captions json, jsonl, or txt with one caption per line",
        old=["--captions"],
    )
    add_option(
        command,
        "--images",
        nargs="+",
        default=[],
        help="folder of images, or shards, which have captions",
    )
    add_option(
        command, "--out", required=True, metavar="TXT", help="file to write", old=["--output"]
    )
    command.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="smallest number of captions with the noun; default: one in 1,000 captions, "
        "at least 1 and at most 10",
    )
    command.add_argument(
        "--min-share",
        type=float,
        metavar="FRACTION",
        help="smallest fraction of a word's uses in which it is a noun; default: 0.5",
    )
    command.add_argument(
        "--compounds", action="store_true", default=None, help='also list pairs, "teddy bear"'
    )


def run(options: Namespace) -> None:
    """Write the list and print its first nouns; ranks other than the first do nothing."""
    from clim_data.derive.nouns import NounRules, write_nouns

    sources = [*options.captions_json, *options.images]
    if not sources:
        raise ValueError("which captions? pass --captions-json FILE, --images SOURCE or both")
    rules = NounRules(**given(options, "min_count", "min_share", "compounds"))
    if not Ranks.of_launcher().is_first:
        return

    report = write_nouns(sources, options.out, rules=rules)
    first = ", ".join(list(report.counts)[:10])
    print(
        f"{report.output}: {len(report.counts):,} nouns that are in at least {report.least_count} "
        f"of {report.captions:,} captions: {first}, ..."
    )
    print(report.skipped.summary())

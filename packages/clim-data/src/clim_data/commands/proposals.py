"""`clim-data proposals`: class-agnostic boxes as a COCO json."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from clim_data.command_line.checks import given
from clim_data.command_line.parser import CommandParser, Commands, add_command
from clim_data.command_line.threads import usable_cpus
from clim_data.command_line.vocabulary import add_option
from clim_data.processes.ranks import Ranks

if TYPE_CHECKING:
    from clim_data.derive.proposal_boxes import BoxChoice
    from clim_data.derive.proposals import BoxFinder, ProposalReport

# Options that only one way of searching takes.
FINDER_OPTIONS = {
    "selective-search": ("search_px", "quality"),
    "rpn": ("detector", "weights", "device", "batch_size"),
}
CHOICE_OPTIONS = ("top", "min_score", "nms", "min_px")
JOB_OPTIONS = ("workers", "part_images", "patience", "on_error", "overwrite")


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-data`."""
    command = add_command(
        commands,
        "proposals",
        run,
        "find class-agnostic boxes in images, as a COCO json",
        description="Write class-agnostic boxes as a COCO json. They are found in images, or taken "
        "from the results of a detector. If the command was killed, run it again to continue. "
        "Under the deepspeed launcher, the ranks share the images.",
    )
    source = command.add_mutually_exclusive_group(required=True)
    add_option(source, "--images", nargs="+")
    source.add_argument(
        "--from", dest="results", metavar="JSON", help="COCO results [{image_id, bbox, score}]"
    )
    add_option(
        command,
        "--images-json",
        help="COCO json of any kind: search only its images, and keep their ids and names",
        old=["--annotations"],
    )
    add_option(
        command, "--out", required=True, metavar="JSON", help="file to write", old=["--output"]
    )
    command.set_defaults(continues=True)
    _add_choice_options(command)
    _add_finder_options(command)
    _add_job_options(command)


def _add_choice_options(command: CommandParser) -> None:
    group = command.add_argument_group("which boxes are written")
    group.add_argument("--top", type=int, metavar="N", help="most boxes per image; default: 50")
    group.add_argument(
        "--min-score", type=float, metavar="S", help="drop boxes with a lower score; default: none"
    )
    group.add_argument(
        "--nms",
        type=float,
        metavar="IOU",
        help="drop the worse of two boxes with a larger IoU; 1 drops none; default: 0.7",
    )
    group.add_argument(
        "--min-px", type=float, metavar="PX", help="smallest width and height; default: 8"
    )


def _add_finder_options(command: CommandParser) -> None:
    group = command.add_argument_group("how boxes are found")
    group.add_argument("--method", choices=tuple(FINDER_OPTIONS), help="default: selective-search")
    group.add_argument(
        "--search-px",
        type=int,
        metavar="PX",
        help="selective search: longest side of the image that is searched; default: 320",
    )
    group.add_argument(
        "--quality", action="store_true", default=None, help="selective search: slow settings"
    )
    group.add_argument(
        "--detector",
        metavar="NAME",
        help="rpn: a detector of torchvision; default: fasterrcnn_resnet50_fpn",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help='rpn: state dict of the detector, or "default" for torchvision\'s own, the default',
    )
    add_option(group, "--device", help="rpn: such as cuda:0; default: the GPU if there is one")
    add_option(group, "--batch-size", help="rpn: images per forward pass; default: 4")


def _add_job_options(command: CommandParser) -> None:
    group = command.add_argument_group("how the work is done")
    add_option(
        group,
        "--workers",
        help="processes that search (rpn: threads that decode); default: the number of cores, "
        "divided among the ranks",
    )
    add_option(
        group,
        "--part-images",
        help="images whose boxes are stored at once; default: a 64th of all, at most 64",
    )
    add_option(
        group,
        "--patience",
        help="seconds without a new part after which rank 0 names the missing ranks; default: 1800",
    )
    add_option(group, "--on-error", help="images that cannot be read; default: skip")
    add_option(
        group, "--overwrite", default=None, help="replace an output of other input or options"
    )


def run(options: Namespace) -> None:
    """Find the boxes, or convert the results of a detector, and print how many there are."""
    from clim_data.derive.proposal_boxes import BoxChoice

    choice = BoxChoice(**given(options, *CHOICE_OPTIONS))
    ranks = Ranks.of_launcher()
    if options.results is None:
        report = _search(options, choice, ranks)
    elif ranks.is_first:  # reading a file is no work to share
        report = _convert(options, choice)
    else:
        _check_conversion(options)
        return
    print(_summary(report, ranks))


def _search(options: Namespace, choice: "BoxChoice", ranks: Ranks) -> "ProposalReport":
    from clim_data.derive.proposals import ProposalJob, find_proposals

    rank, world_size = ranks
    job = ProposalJob(
        **{"workers": usable_cpus(), **given(options, *JOB_OPTIONS)},
        rank=rank,
        world_size=world_size,
    )
    return find_proposals(
        options.images,
        options.out,
        _build_finder(options),
        choice=choice,
        annotations=options.images_json,
        job=job,
    )


def _convert(options: Namespace, choice: "BoxChoice") -> "ProposalReport":
    from clim_data.derive.proposals import convert_results

    _check_conversion(options)
    return convert_results(options.results, options.images_json, options.out, choice=choice)


def _check_conversion(options: Namespace) -> None:
    """Refuse options of a search, which have no effect on existing results."""
    names = [name for names in FINDER_OPTIONS.values() for name in names]
    of_search = given(options, *JOB_OPTIONS, "method", *names)
    if of_search:
        raise ValueError(
            f"{_flags(of_search)} belong to a search: leave them out, or give --images, not --from"
        )
    if options.images_json is None:
        raise ValueError("--from needs the images of the results: give --images-json JSON")


def _build_finder(options: Namespace) -> "BoxFinder":
    method = options.method or "selective-search"
    (other,) = set(FINDER_OPTIONS) - {method}
    foreign = given(options, *FINDER_OPTIONS[other])
    if foreign:
        raise ValueError(
            f"{_flags(foreign)} belong to --method {other}, not {method}: leave them out"
        )

    chosen = given(options, *FINDER_OPTIONS[method])
    if method == "rpn":
        from clim_data.derive.rpn import RpnBoxes

        return RpnBoxes(**chosen)
    from clim_data.derive.selective_search import SelectiveSearch

    return SelectiveSearch(**chosen)


def _flags(options: dict[str, Any]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in options)


def _summary(report: "ProposalReport", ranks: Ranks) -> str:
    if not report.complete:
        return (
            f"rank {ranks.rank} of {ranks.world_size}: {report.images:,} images searched, "
            f"{report.boxes:,} boxes"
        )
    if report.images:
        lines = [
            f"{report.output}: {report.boxes:,} boxes in {report.images:,} images",
            report.skipped.summary(),
        ]
        if report.repaired:
            lines.insert(
                0, f"{report.repaired:,} images that could not be read before were searched now"
            )
        return "\n".join(lines)
    return (
        f"{report.output} is there already, of the same input and options (images that were "
        "replaced since are not compared); delete it to search again"
    )

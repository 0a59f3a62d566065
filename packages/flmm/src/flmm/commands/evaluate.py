"""`flmm eval png`, `refcoco`, `grefcoco`, `reasonseg`, `flickr30k` and `viscot`: a data set scored,
or its questions answered."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from clim_data.command_line import CommandParser, Commands, add_command, add_option, at_least
from clim_data.files import check_output_folder
from clim_data.processes import Ranks

from flmm.commands.evaluation_figures import figures_of
from flmm.commands.evaluation_options import (
    add_run_options,
    join_ranks,
    on_own_gpu,
    print_figures,
    what_counts,
)
from flmm.commands.grounders import (
    add_grounder_options,
    check_grounder,
    grounder_from_options,
    options_of,
    unanswered_notes,
)
from flmm.commands.options import add_score_option, say
from flmm.commands.visual_cot import add_visual_cot, answer_benchmark

if TYPE_CHECKING:
    from flmm.adapters.frozen import FrozenLMM
    from flmm.evaluation.masks import ForSamples, GroundingEvaluation
    from flmm.grounders.grounder import Grounder


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    text = "score a grounded LMM on a data set, or answer the questions of a benchmark"
    kinds = commands.add_parser("eval", help=text, description=text).add_subparsers(
        dest="kind", required=True
    )
    _add_narratives(kinds)
    _add_expressions(kinds)
    _add_generalized(kinds)
    _add_reasoning(kinds)
    _add_entities(kinds)
    add_visual_cot(kinds, run)


def _add_narratives(kinds: Commands) -> None:
    parser = add_command(kinds, "png", run, "Panoptic Narrative Grounding: average recall")
    add_option(
        parser,
        "--images",
        help="shards of `clim-data pack png`; or a folder of images, with the three files below",
        old=["--shards"],
    )
    add_option(parser, "--narratives-json", old=["--narratives"])
    add_option(parser, "--panoptic-json")
    add_option(parser, "--panoptic-dir")
    _add_scoring(parser)
    add_run_options(parser)


def _add_expressions(kinds: Commands) -> None:
    parser = add_command(
        kinds, "refcoco", run, "RefCOCO, RefCOCO+, RefCOCOg: cIoU, mIoU, precision"
    )
    _add_expression_files(parser, old=True)
    parser.add_argument(
        "--protocol",
        choices=("standard", "original"),
        default="standard",
        help="each sentence by itself, or F-LMM's: the first sentences of an image in one text",
    )
    _add_scoring(parser)
    add_run_options(parser)


def _add_generalized(kinds: Commands) -> None:
    parser = add_command(
        kinds,
        "grefcoco",
        run,
        "gRefCOCO, also expressions for nothing: gIoU, cIoU, N-acc, T-acc, AUROC, cgF1",
    )
    _add_expression_files(parser, old=False)
    _add_scoring(parser)
    add_run_options(parser)


def _add_reasoning(kinds: Commands) -> None:
    parser = add_command(kinds, "reasonseg", run, "ReasonSeg: gIoU and cIoU of grounded answers")
    add_option(
        parser,
        "--images",
        required=True,
        metavar="DIR",
        help="folder of a split, with NAME.json next to NAME.jpg",
    )
    parser.add_argument(
        "--queries",
        choices=("first", "all"),
        default="first",
        help="questions of an image that are used; most papers use the first",
    )
    parser.add_argument(
        "--grounded",
        choices=("answer", "question"),
        default="answer",
        help="what is grounded: the answer that the LMM gives first, or the question's own words",
    )
    _add_scoring(parser)
    add_run_options(parser)


def _add_entities(kinds: Commands) -> None:
    parser = add_command(
        kinds, "flickr30k", run, "Flickr30k Entities: boxes of phrases, pointing game"
    )
    add_option(parser, "--images", required=True, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--entities", required=True, metavar="DIR", help="folder with Sentences/ and Annotations/"
    )
    add_option(
        parser,
        "--split",
        metavar="TXT",
        help="file with an id a line, such as test.txt; default: all annotated images",
    )
    _add_scoring(parser)
    add_run_options(parser)


def _add_expression_files(parser: CommandParser, *, old: bool) -> None:
    """Add the options of referring expressions. old: with the hidden older spellings."""
    add_option(
        parser,
        "--images",
        help="shards of `clim-data pack refcoco` of one split; or a folder of images, with the "
        "files and the split below",
        old=["--shards"] if old else [],
    )
    add_option(parser, "--refs")
    add_option(
        parser,
        "--instances-json",
        help="instances.json of the set",
        old=["--instances"] if old else [],
    )
    add_option(parser, "--split")


def _add_scoring(parser: CommandParser) -> None:
    add_option(parser, "--batch-size", default=1, help="images per pass of the LMM")
    add_score_option(parser)
    add_grounder_options(parser, several="several are compared in one table")
    add_option(parser, "--workers", default=2)
    parser.add_argument(
        "--pictures",
        type=at_least(0),
        default=3,
        metavar="N",
        help="pictures of each of the best, middle and worst samples",
    )


def run(options: Namespace) -> None:
    """Score the data set or answer the questions.

    Raises ValueError or FileNotFoundError for mistakes of the user, PeerFailedError where another
    process has failed.
    """
    from clim_train.run import failures_shared

    check_output_folder(options.out, "-o")
    join_ranks()
    with failures_shared():
        if options.kind == "viscot":
            answer_benchmark(options)
        else:
            score(options)


def score(options: Namespace) -> None:
    """Score a data set with each grounder and, on rank 0, write the reports."""
    from clim_eval import write_report

    kinds = list(dict.fromkeys(options.grounder))
    for kind in kinds:  # before the minutes that loading can take
        check_grounder(options, kind)
    data = open_data(options)

    rows: dict[str, dict[str, float]] = {}
    lmm = None
    for kind in kinds:
        folder = options.out if len(kinds) == 1 else options.out / kind
        one = options_of(options, kind)
        one.out = folder
        if len(kinds) > 1:
            say(f"grounder {kind}:")
        lmm, rows[kind] = _score_one(one, data, lmm)
    if len(kinds) > 1 and Ranks.of_group()[0] == 0:
        title = f"flmm eval {options.kind}: {', '.join(kinds)}"
        write_report(options.out, title=title, metrics=rows, config=what_counts(options))
        print(options.out / "report.md")


def _score_one(
    options: Namespace, data: Any, lmm: "FrozenLMM | None"
) -> "tuple[FrozenLMM, dict[str, float]]":
    """Score a data set with one grounder -> its LMM and the figures of its report (rank 0)."""
    from clim_eval import MaskScores

    from flmm.evaluation.masks import report_scores

    config = what_counts(options)
    rank, _ = Ranks.of_group()
    scores = MaskScores(options.out / "samples", rank=rank, config={**config, "data": data.stamp()})
    grounder = grounder_from_options(on_own_gpu(options), lmm)
    evaluation = _evaluation(options, grounder, data)
    if len(scores):
        say(f"{len(scores)} samples are scored already")
    evaluation.run(scores)
    unanswered = unanswered_notes(grounder)
    if rank != 0:
        return grounder.lmm, {}

    metrics, note = figures_of(options, scores, data)
    report = report_scores(
        options.out,
        evaluation,
        scores,
        title=f"flmm eval {options.kind}",
        metrics=metrics,
        config=config,
        notes=[note, *unanswered],
        pictures=options.pictures,
    )
    print_figures(metrics, evaluation.coverage(scores))
    seconds = evaluation.seconds_per_phrase
    is_timed = seconds == seconds  # nan, if all were scored already
    print("\n".join([*unanswered, *([f"{seconds:.3f} s for each phrase"] if is_timed else [])]))
    print(options.out / "report.md")
    return grounder.lmm, report["metrics"]


def _evaluation(options: Namespace, grounder: "Grounder", data: Any) -> "GroundingEvaluation":
    """Return the evaluation of a kind of data set."""
    from flmm.evaluation.entities import EntityEvaluation
    from flmm.evaluation.masks import GroundingEvaluation
    from flmm.evaluation.reasoning import ReasoningGrounder

    kind = EntityEvaluation if options.kind == "flickr30k" else GroundingEvaluation
    made: ForSamples = grounder
    if options.kind == "reasonseg":
        made = ReasoningGrounder(grounder, what=options.grounded)
    return kind(
        made,
        data,
        batch_size=options.batch_size,
        workers=options.workers,
        limit=options.limit,
        min_score=options.min_score,
    )


def open_data(options: Namespace) -> Any:
    """Return the reader of the data set.

    Raises ValueError when the options name neither shards nor all files.
    """
    from clim_data import (
        FlickrEntities,
        PanopticNarratives,
        ReasoningSegmentation,
        ReferringExpressions,
    )
    from clim_data.readers import PROTOCOLS

    if options.kind == "reasonseg":
        return ReasoningSegmentation(options.images, queries=options.queries)
    if options.kind == "flickr30k":
        return FlickrEntities(options.images, options.entities, split=options.split)
    if options.kind == "png":
        return _open_narratives(options, PanopticNarratives)

    rules = PROTOCOLS["standard" if options.kind == "grefcoco" else options.protocol]
    files = {
        "--refs": options.refs,
        "--instances-json": options.instances_json,
        "--split": options.split,
    }
    if _is_folder_of_images(options.images, files):
        return ReferringExpressions(
            options.images, options.refs, options.instances_json, split=options.split, **rules
        )
    return ReferringExpressions.from_shards(options.images, **rules)


def _open_narratives(options: Namespace, reader: Any) -> Any:
    files = {
        "--narratives-json": options.narratives_json,
        "--panoptic-json": options.panoptic_json,
        "--panoptic-dir": options.panoptic_dir,
    }
    if _is_folder_of_images(options.images, files):
        return reader(options.images, *files.values())
    return reader.from_shards(options.images)


def _is_folder_of_images(images: str | None, files: dict[str, Any]) -> bool:
    """Return whether the images come with all `files`, or False for shards, which need none."""
    given = [flag for flag, value in files.items() if value is not None]
    missing = [flag for flag in files if flag not in given]
    if images is None or (given and missing):
        asked = ", ".join(["--images", *files])
        raise ValueError(
            f"which data? {', '.join(missing) if images else '--images'} is missing: pass --images "
            f"with shards, or all of {asked}"
        )
    return bool(given)

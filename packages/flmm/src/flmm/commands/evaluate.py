"""`flmm eval png`, `flmm eval refcoco` and `flmm eval viscot`: a data set scored, or its questions
answered."""

import argparse
import zlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from clim_data import SkipReport
from clim_data.annotations import VisualCotRecord
from clim_data.command_line import CommandParser, Commands, add_command, add_option
from clim_data.processes import Ranks, local_device

from flmm.commands.options import (
    add_model_options,
    grounder_from_options,
    heads_file,
    load_from_options,
    say,
)

PROTOCOL_NOTES = {
    "original": "Protocol `original` (F-LMM's): the first sentence of each object, all of an image "
    "in one text, so that later expressions see the earlier ones. Not comparable with the standard "
    "protocol.",
    "standard": "Protocol `standard`: every sentence of every object by itself.",
}


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    text = "score a grounded LMM on a data set, or answer the questions of a benchmark"
    kinds = commands.add_parser("eval", help=text, description=text).add_subparsers(
        dest="kind", required=True
    )
    _add_narratives(kinds)
    _add_expressions(kinds)
    _add_visual_cot(kinds)


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
    _add_run(parser)


def _add_expressions(kinds: Commands) -> None:
    parser = add_command(
        kinds, "refcoco", run, "RefCOCO, RefCOCO+, RefCOCOg: cIoU, mIoU, precision"
    )
    add_option(
        parser,
        "--images",
        help="shards of `clim-data pack refcoco` of one split; or a folder of images, with the "
        "files and the split below",
        old=["--shards"],
    )
    add_option(parser, "--refs")
    add_option(parser, "--instances-json", help="instances.json of the set", old=["--instances"])
    add_option(parser, "--split")
    parser.add_argument(
        "--protocol",
        choices=("standard", "original"),
        default="standard",
        help="each sentence by itself, or F-LMM's: the first sentences of an image in one text",
    )
    _add_scoring(parser)
    _add_run(parser)


def _add_visual_cot(kinds: Commands) -> None:
    parser = add_command(
        kinds, "viscot", run, "Visual CoT benchmark: answers are saved, not judged"
    )
    parser.add_argument(
        "--questions", required=True, nargs="+", metavar="JSON", help="files of the benchmark"
    )
    add_option(
        parser,
        "--images",
        required=True,
        metavar="DIR",
        help="folder that contains the images of the questions",
    )
    parser.add_argument(
        "--focus",
        choices=("thought", "question", "none"),
        default="thought",
        help="what the model looks at again: what its thought names, what the question names, "
        "or nothing",
    )
    parser.add_argument("--no-sam", action="store_true", help="boxes of the coarse masks")
    _add_run(parser)


def _add_scoring(parser: CommandParser) -> None:
    add_option(parser, "--batch-size", default=1, help="images per pass of the LMM")
    add_option(parser, "--workers", default=2)
    parser.add_argument(
        "--pictures",
        type=int,
        default=3,
        metavar="N",
        help="pictures of each of the best, middle and worst samples",
    )


def _add_run(parser: CommandParser) -> None:
    add_model_options(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate the first N samples only")
    add_option(
        parser,
        "--out",
        short="-o",
        required=True,
        metavar="DIR",
        help="folder of the results; started again with it, a run continues",
    )


def run(options: Namespace) -> None:
    """Score the data set or answer the questions.

    Raises ValueError or FileNotFoundError for mistakes of the user, PeerFailedError where another
    process has failed.
    """
    from clim_train.run import failures_shared

    join_ranks()
    with failures_shared():
        if options.kind == "viscot":
            answer_benchmark(options)
        else:
            score(options)


def join_ranks() -> None:
    """Join the process group of a launcher (`torchrun`, `deepspeed`), if one started this process;
    it carries counts."""
    import torch

    if Ranks.of_launcher().world_size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def score(options: argparse.Namespace) -> None:
    """Score a data set and, on rank 0, write the report."""
    from clim_eval import MaskScores, narrative_scores, referring_scores

    from flmm.evaluation.masks import GroundingEvaluation, report_scores

    data = open_data(
        options
    )  # like all that can be wrong, before the minutes that loading can take
    config = what_counts(options)
    rank, _ = Ranks.of_group()
    scores = MaskScores(options.out / "samples", rank=rank, config={**config, "data": data.stamp()})
    grounder = grounder_from_options(on_own_gpu(options))
    evaluation = GroundingEvaluation(
        grounder, data, batch_size=options.batch_size, workers=options.workers, limit=options.limit
    )
    if len(scores):
        say(f"{len(scores)} samples are scored already")
    evaluation.run(scores)
    if rank != 0:
        return
    if options.kind == "png":
        metrics = narrative_scores(scores) | narrative_scores(scores, protocol="original")
        notes = [
            "`original`: the sums of F-LMM's evaluation; the others are exact. Masks have the "
            "image's own size."
        ]
    else:
        metrics = referring_scores(scores, protocol=options.protocol)
        notes = [PROTOCOL_NOTES[options.protocol]]
    report_scores(
        options.out,
        evaluation,
        scores,
        title=f"flmm eval {options.kind}",
        metrics=metrics,
        config=config,
        notes=notes,
        pictures=options.pictures,
    )
    for name, value in metrics.items():
        print(
            f"{100 * value:6.2f} %  {name}"
            if value == value
            else f"     -    {name} (no such phrases)"
        )
    for part in evaluation.coverage(scores):
        print("\n".join(part.lines()))
    print(options.out / "report.md")


# Options that change no score.
_FREE = ("out", "workers", "pictures", "device", "questions", "run", "command", "continues")


def what_counts(options: argparse.Namespace) -> dict[str, str]:
    """Return the options that results depend on, and a checksum of the heads."""
    named = {
        name: str(value)
        for name, value in vars(options).items()
        if value is not None and name not in _FREE
    }
    return {**named, "heads": f"{zlib.crc32(heads_file(options.checkpoint).read_bytes()):08x}"}


def on_own_gpu(options: argparse.Namespace) -> argparse.Namespace:
    """With the GPU of this rank where no device is named and there are several ranks."""
    import torch

    if options.device is None and torch.cuda.is_available():
        return argparse.Namespace(**{**vars(options), "device": str(local_device())})
    return options


def open_data(options: argparse.Namespace) -> Any:
    """Return the reader of the data set.

    Raises ValueError when the options name neither shards nor all files.
    """
    from clim_data import PanopticNarratives, ReferringExpressions
    from clim_data.readers import PROTOCOLS

    if options.kind == "png":
        return _open_narratives(options, PanopticNarratives)

    rules = PROTOCOLS[options.protocol]
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


def answer_benchmark(options: argparse.Namespace) -> None:
    """Answer the questions of each file into a folder of its own."""
    from clim_eval import Coverage
    from clim_eval.reports import check_scored

    from flmm.evaluation.viscot import answer_questions, read_questions

    unusable = SkipReport()
    files: dict[str, list[VisualCotRecord]] = {}
    for name in options.questions:
        stem = Path(name).stem
        if stem in files:
            raise ValueError(
                f"two files of questions are called {stem}, and would share a folder: rename one"
            )
        files[stem] = read_questions(name, unusable)
    if unusable.total and Ranks.of_group().is_first:
        say(unusable.summary(5))
    model = load_from_options(on_own_gpu(options))
    for name, questions in files.items():
        figures, skipped = answer_questions(
            model,
            questions[: options.limit],
            images=options.images,
            out=options.out / name,
            focus=None if options.focus == "none" else options.focus,
            refine=not options.no_sam,
            config=what_counts(options),
        )
        if Ranks.of_group().is_first:
            print(
                f"{name}: {figures['answered']:.0f} answers, mean box IoU {figures['box_iou']:.3f}"
            )
            coverage = Coverage.of("questions", int(figures["answered"]), skipped.faults)
            print("\n".join(coverage.lines()))
            check_scored([coverage], "check --images, the folder below which the images lie")

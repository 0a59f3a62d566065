"""`flmm eval png`, `flmm eval refcoco` and `flmm eval viscot`: a data set scored, or its questions
answered."""

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clim_data.processes import Ranks, local_device

from flmm.commands.options import add_model_options, heads_file, load_from_options, say

PROTOCOL_NOTES = {
    "original": "Protocol `original` (F-LMM's): the first sentence of each object, all of an image in one text, so "
    "that later expressions see the earlier ones. Not comparable with the standard protocol.",
    "standard": "Protocol `standard`: every sentence of every object by itself.",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flmm eval", description="Score a grounded LMM on a data set."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    png = kinds.add_parser("png", help="Panoptic Narrative Grounding: average recall")
    png.add_argument("--shards", help="folder of `clim-data pack png`; or the four files:")
    for name in ("--images", "--narratives", "--panoptic-json", "--panoptic-dir"):
        png.add_argument(name)
    refcoco = kinds.add_parser("refcoco", help="RefCOCO, RefCOCO+, RefCOCOg: cIoU, mIoU, precision")
    refcoco.add_argument(
        "--shards", help="folder of `clim-data pack refcoco` of one split; or the files and split:"
    )
    for name in ("--images", "--refs", "--instances", "--split"):
        refcoco.add_argument(name)
    refcoco.add_argument("--protocol", choices=("standard", "original"), default="standard")
    viscot = kinds.add_parser("viscot", help="Visual CoT benchmark: answers are saved, not judged")
    viscot.add_argument("--questions", required=True, nargs="+", help="json files of the benchmark")
    viscot.add_argument(
        "--images", required=True, help="folder that the questions' image names are below"
    )
    viscot.add_argument("--focus", choices=("thought", "question", "none"), default="thought")
    viscot.add_argument("--no-sam", action="store_true", help="boxes of the coarse masks")
    for kind in (png, refcoco):
        kind.add_argument("--batch-size", type=int, default=1, help="images of one pass of the LMM")
        kind.add_argument("--workers", type=int, default=2)
        kind.add_argument(
            "--pictures", type=int, default=3, help="of the best, middle and worst samples each"
        )
    for kind in (png, refcoco, viscot):
        add_model_options(kind)
        kind.add_argument("--limit", type=int, help="only the first so many samples")
        kind.add_argument(
            "-o",
            "--out",
            type=Path,
            required=True,
            help="folder; started again in it, a run goes on",
        )
    return parser


def main(argv: Sequence[str]) -> None:
    """Raises ValueError or FileNotFoundError for mistakes of the user, PeerFailedError where another
    process has failed."""
    options = build_parser().parse_args(argv)
    from clim_train.run import failures_shared

    join_ranks()
    with failures_shared():
        if options.kind == "viscot":
            answer_benchmark(options)
        else:
            score(options)


def join_ranks() -> None:
    """The process group of a launcher (`torchrun`, `deepspeed`), if one started this process; it
    carries counts."""
    import torch

    if Ranks.of_launcher().world_size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def score(options: argparse.Namespace) -> None:
    """Scores a data set and, on rank 0, writes the report."""
    from clim_eval import MaskScores, narrative_scores, referring_scores

    from flmm.evaluation.masks import GroundingEvaluation, report_scores

    data = open_data(
        options
    )  # like all that can be wrong, before the minutes that loading can take
    config = what_counts(options)
    rank, _ = Ranks.of_group()
    scores = MaskScores(options.out / "samples", rank=rank, config={**config, "data": data.stamp()})
    model = load_from_options(on_own_gpu(options))
    evaluation = GroundingEvaluation(
        model, data, batch_size=options.batch_size, workers=options.workers, limit=options.limit
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
    print(options.out / "report.md")


# Options that change no score.
_FREE = ("out", "workers", "pictures", "device", "questions")


def what_counts(options: argparse.Namespace) -> dict[str, str]:
    """The options that results depend on, and a checksum of the heads."""
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
    """The reader of the data set that is named. Raises ValueError when neither shards nor all files
    are."""
    from clim_data import PanopticNarratives, ReferringExpressions
    from clim_data.readers import PROTOCOLS

    if options.kind == "png":
        files = (options.images, options.narratives, options.panoptic_json, options.panoptic_dir)
        _check_places(
            options.shards, files, "--images, --narratives, --panoptic-json and --panoptic-dir"
        )
        return (
            PanopticNarratives.from_shards(options.shards)
            if options.shards
            else PanopticNarratives(*files)
        )
    files = (options.images, options.refs, options.instances, options.split)
    _check_places(options.shards, files, "--images, --refs, --instances and --split")
    chosen = PROTOCOLS[options.protocol]
    if options.shards:
        return ReferringExpressions.from_shards(options.shards, **chosen)
    return ReferringExpressions(*files[:3], split=options.split, **chosen)


def _check_places(shards: str | None, files: tuple, names: str) -> None:
    given = [file for file in files if file is not None]
    if (shards is None and len(given) < len(files)) or (shards is not None and given):
        raise ValueError(f"which data? Give either --shards, or {names}")


def answer_benchmark(options: argparse.Namespace) -> None:
    """Answers the questions of each file into a folder of its own."""
    from flmm.evaluation.viscot import VisualQuestion, answer_questions, read_questions

    files: dict[str, list[VisualQuestion]] = {}
    for name in options.questions:
        stem = Path(name).stem
        if stem in files:
            raise ValueError(
                f"two files of questions are called {stem}, and would share a folder: rename one"
            )
        files[stem] = read_questions(name)
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
            if skipped.total:
                say(skipped.summary(5))

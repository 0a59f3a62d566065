"""`flmm eval viscot`: questions of the Visual CoT benchmark, answered and scored."""

import gc
import zlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data import SkipReport
from clim_data.annotations import VisualCotRecord
from clim_data.command_line import Commands, add_command, add_option
from clim_data.processes import Ranks
from clim_eval import Coverage

from flmm.commands.evaluation_options import (
    add_run_options,
    on_own_gpu,
    print_figures,
    what_counts,
)
from flmm.commands.options import device_and_dtype, load_from_options, say

if TYPE_CHECKING:
    from flmm.evaluation.judges import EndpointJudge, Judge

RULE_NOTE = (
    "Without a judge answers are compared by words: `answer_exact`, `answer_contains` (the true "
    "answer stands in the answer) and `answer_F1`. The published scores come from a judge."
)
JUDGE_NOTE = (
    "`answer_judged` is the mean score, 0 to 1, of the judge {name}; {unread} of its replies had "
    "no score and count 0. Scores of different judges cannot be compared."
)


def add_visual_cot(kinds: Commands, run: Callable[[Namespace], None]) -> None:
    """Add `viscot` to the kinds of `flmm eval`."""
    parser = add_command(
        kinds, "viscot", run, "Visual CoT benchmark: boxes, and answers by rules or by a judge"
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
    parser.add_argument(
        "--judge",
        metavar="URL_OR_LMM",
        help="language model that grades the answers: the address of a server with OpenAI's chat "
        "protocol, such as http://localhost:8000/v1 (its key: the variable OPENAI_API_KEY), or an "
        "LMM's folder or hub id; default: rules of strings only",
    )
    parser.add_argument(
        "--judge-model",
        metavar="NAME",
        help="model of the server; default: gpt-3.5-turbo-1106, the published one",
    )
    add_run_options(parser)


@dataclass(frozen=True)
class _QuestionFile:
    """The usable questions of a file, and the others as faults. stamp: changes with any
    question."""

    questions: list[VisualCotRecord]
    unusable: SkipReport
    stamp: str


def answer_benchmark(options: Namespace) -> None:
    """Answer the questions of each file into a folder of its own, score them, and write a report.

    Raises:
        ValueError: nothing was answered, or a mistake of the user.
        ConnectionError: the judge does not answer.
    """
    from flmm.evaluation.viscot import answer_questions

    files = _read_files(options)
    endpoint = _endpoint(options)  # like all that can be wrong, before loading
    model = load_from_options(on_own_gpu(options))
    skipped: dict[str, SkipReport] = {}
    for name, file in files.items():
        skipped[name] = answer_questions(
            model,
            file.questions,
            images=options.images,
            out=options.out / name,
            focus=None if options.focus == "none" else options.focus,
            refine=not options.no_sam,
            config={**what_counts(options), "questions": file.stamp},
        )
        skipped[name].extend(file.unusable.faults)

    judge: Judge | None = endpoint
    if options.judge is not None and endpoint is None and Ranks.of_group().is_first:
        # Two LMMs need not fit into memory at once.
        del model
        gc.collect()
        judge = _local_judge(options)
    _score(options, files, skipped, judge)


def _read_files(options: Namespace) -> dict[str, _QuestionFile]:
    from flmm.evaluation.viscot import read_questions

    files: dict[str, _QuestionFile] = {}
    for name in options.questions:
        stem = Path(name).stem
        if stem in files:
            raise ValueError(
                f"two files of questions are called {stem}, and would share a folder: rename one"
            )
        unusable = SkipReport()
        questions = read_questions(name, unusable)
        stamp = f"{zlib.crc32(repr([tuple(question) for question in questions]).encode()):08x}"
        files[stem] = _QuestionFile(questions[: options.limit], unusable, stamp)
    return files


def _endpoint(options: Namespace) -> "EndpointJudge | None":
    """Return the judge behind an address; None without one."""
    from flmm.evaluation.judges import PUBLISHED_JUDGE, EndpointJudge
    from flmm.hub import hub_options

    if options.judge is not None and "://" in options.judge:
        return EndpointJudge(options.judge, options.judge_model or PUBLISHED_JUDGE)
    if options.judge_model is not None:
        raise ValueError("--judge-model names the model of a server: pass --judge with its address")
    if options.judge is not None:
        hub_options(options.judge, what="the LMM that judges")
    return None


def _local_judge(options: Namespace) -> "Judge":
    from flmm.adapters.registry import load_lmm
    from flmm.evaluation.judges import LmmJudge

    device, dtype = device_and_dtype(options)
    say(f"loading the judge {options.judge} ({dtype}, {device}) ...")
    return LmmJudge(load_lmm(options.judge, dtype=dtype, device=device), options.judge)


def _score(
    options: Namespace,
    files: dict[str, _QuestionFile],
    skipped: dict[str, SkipReport],
    judge: "Judge | None",
) -> None:
    """Score the answers of all files; the first rank judges and writes the report."""
    from clim_eval import write_report
    from clim_eval.reports import check_scored

    from flmm.evaluation.viscot_scores import answer_metrics, answers_to, judge_answers

    answers = {}
    coverage = []
    for name, file in files.items():
        answers[name] = answers_to(
            [question.key for question in file.questions], options.out / name
        )
        part = Coverage.of("questions", len(answers[name]), skipped[name].faults)
        coverage.append(part.of_part(name))
    check_scored(coverage, "check --images, the folder below which the images lie")
    if not Ranks.of_group().is_first:
        return

    verdicts: dict[str, float | None] | None = None
    notes = [RULE_NOTE]
    if judge is not None:
        verdicts = {}
        for name, found in answers.items():
            verdicts |= judge_answers(judge, found, options.out / name)
        unread = sum(score is None for score in verdicts.values())
        notes.append(JUDGE_NOTE.format(name=judge.name, unread=unread))

    arms = {name: answer_metrics(found, verdicts) for name, found in answers.items()}
    if len(arms) > 1:
        everything = [one for found in answers.values() for one in found]
        arms["all questions"] = answer_metrics(everything, verdicts)
    config = {**what_counts(options), "judge": None if judge is None else judge.name}
    write_report(
        options.out,
        title="flmm eval viscot",
        metrics=arms,
        config=config,
        coverage=coverage,
        notes=notes,
    )
    for arm, metrics in arms.items():
        print(arm)
        print_figures(metrics, [])
    print_figures({}, coverage)
    print(options.out / "report.md")

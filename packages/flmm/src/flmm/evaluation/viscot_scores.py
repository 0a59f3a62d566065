"""Scores of saved answers to the Visual CoT benchmark: boxes, rules of strings, and a judge."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from clim_eval.evaluators import progress_bar

from flmm.evaluation.answer_rules import RULES, rule_scores
from flmm.evaluation.judges import INSTRUCTION, Judge, read_score
from flmm.evaluation.viscot import LineFile, read_lines, saved_answers

Answers = Sequence[Mapping[str, Any]]
HIT_IOU = 0.5


def answers_to(keys: Sequence[str], folder: str | Path) -> list[dict[str, Any]]:
    """Read the saved answers to these questions, in their order."""
    saved = {record["key"]: record for record in saved_answers(folder)}
    return [saved[key] for key in keys if key in saved]


def answer_metrics(
    answers: Answers, verdicts: Mapping[str, float | None] | None = None
) -> dict[str, float]:
    """Average the scores of answers; nan without any.

    Args:
        answers: records of `answer_questions`.
        verdicts: a judge's score of each key, None for a reply that has no score.

    Returns:
        box_mIoU and box_acc@0.5 of the part that was looked at; answer_exact, answer_contains and
        answer_F1, see `rule_scores`; answer_judged where there are verdicts, a reply without a
        score being 0, as published.
    """
    boxes = np.array([box_iou(one["box"], one["gt_bbox"]) for one in answers])
    rules = [rule_scores(one["answer"], one["gt"]) for one in answers]
    scores: dict[str, Any] = {"box_mIoU": boxes, "box_acc@0.5": boxes >= HIT_IOU}
    for rule in RULES:
        scores[f"answer_{rule}"] = [one[rule] for one in rules]
    if verdicts is not None:
        scores["answer_judged"] = [verdicts[one["key"]] or 0.0 for one in answers]
    return {name: float(np.mean(all_)) if len(all_) else np.nan for name, all_ in scores.items()}


def judge_answers(
    judge: Judge, answers: Answers, folder: str | Path, *, bar: bool = True
) -> dict[str, float | None]:
    """Let a judge grade answers, and store each verdict in `folder` at once.

    Verdicts of the same judge on the same answer that are in the folder are not requested again.

    Returns:
        The score of each key; None for a reply without exactly one score.

    Raises:
        The errors of the judge; the verdicts so far stay.
    """
    path = Path(folder) / f"verdicts-{_stamp(judge.name, INSTRUCTION)}.jsonl"
    stamps = {one["key"]: _stamp(one["question"], one["gt"], one["answer"]) for one in answers}
    replies = {}
    if path.is_file():
        for record in read_lines(path):
            if record["answer"] == stamps.get(record["key"]):
                replies[record["key"]] = record["reply"]

    left = [one for one in answers if one["key"] not in replies]
    with LineFile(path) as file:
        graded = _replies(judge, left)
        for key, reply in progress_bar(graded, len(left), "judging", bar):
            file.add({"key": key, "answer": stamps[key], "judge": judge.name, "reply": reply})
            replies[key] = reply
    return {key: read_score(reply) for key, reply in replies.items()}


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two XYXY boxes, 0 where both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - inside
    return inside / union if union > 0 else 0.0


def _replies(judge: Judge, answers: Answers) -> Iterator[tuple[str, str]]:
    """Yield (key, reply) of each answer, several requests at a time where the judge takes them."""

    def ask(one: Mapping[str, Any]) -> tuple[str, str]:
        return one["key"], judge(one["question"], one["gt"], one["answer"])

    if judge.parallel == 1:
        yield from map(ask, answers)
        return
    with ThreadPoolExecutor(judge.parallel) as pool:
        try:
            yield from pool.map(ask, answers)
        finally:
            pool.shutdown(cancel_futures=True)  # one request that failed ends all


def _stamp(*texts: str) -> str:
    """Return eight hexadecimal digits that differ between texts."""
    return f"{zlib.crc32(chr(0).join(texts).encode('utf-8', 'surrogatepass')):08x}"

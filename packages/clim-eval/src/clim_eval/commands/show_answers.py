"""The answers of `clim-eval show`: the place of each text and the name of each box, as lines, JSON
and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clim_eval.metrics.words import pointing_hits
from clim_eval.model_loading import has_random_weights
from clim_eval.pictures.named_boxes import NamedBoxes
from clim_eval.pictures.similarity import MapRow, comparison_figure, row_figure

if TYPE_CHECKING:
    from clim_models import RegionModel
    from matplotlib.figure import Figure
    from torch import Tensor

    from clim_eval.pictures.locate import TextLocations


@dataclass(frozen=True)
class Question:
    """The queries about an image.

    Attributes:
        image: uint8 (3, H, W).
        texts: what to look for.
        boxes: (n, 4) XYXY in [0, 1] to name, or None.
        truth: the text of each box, where it is known.
        draw: what marks a region, "box", "mask" or "none".
    """

    image: Tensor
    texts: Sequence[str]
    boxes: Tensor | None = None
    truth: Tensor | None = None
    draw: str = "box"


@dataclass(frozen=True)
class Answer:
    """The answer of one model at one size of the image."""

    title: str
    image_px: int
    found: TextLocations
    is_random: bool

    def picks(self) -> np.ndarray | None:
        """Return the number of the text that is the name of each box, int (n,), or None without
        boxes."""
        scores = self.found.box_scores
        return None if scores is None else scores.argmax(axis=1)


def title_of(model: RegionModel, *, alone: bool = True) -> str:
    """Return the title of a model in a picture."""
    if has_random_weights(model):
        return f"{model.name}, random weights"
    return f'{model.name} "{model.pretrained}"' if alone else str(model.pretrained)


def lines_of(question: Question, answer: Answer) -> list[str]:
    """Return a line for each text, and for each box; places in pixels of the image."""
    height, width = question.image.shape[1:]
    found = answer.found
    lines = []
    for number, text in enumerate(question.texts):
        x, y = (found.peaks[number] * [width, height]).round().astype(int).tolist()
        line = f"{text}: cosine {found.scores[number]:.3f} at x {x}, y {y} px"
        if np.isfinite(found.boxes[number]).all():
            x0, y0, x1, y1 = _in_pixels(found.boxes[number], width, height)
            line += f"; region x {x0}-{x1}, y {y0}-{y1} px"
        lines.append(line)

    picks = answer.picks()
    if picks is not None and question.boxes is not None and found.box_scores is not None:
        for number, pick in enumerate(picks.tolist()):
            x0, y0, x1, y1 = _in_pixels(question.boxes[number].numpy(), width, height)
            score = found.box_scores[number, pick]
            name = question.texts[pick]
            lines.append(f"box x {x0}-{x1}, y {y0}-{y1} px: {name}, cosine {score:.3f}")
    return lines


def json_of(question: Question, answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON has it; places in pixels of the image."""
    height, width = question.image.shape[1:]
    found = answer.found
    texts = []
    for number, text in enumerate(question.texts):
        box = found.boxes[number]
        texts.append(
            {
                "text": text,
                "cosine": float(found.scores[number]),
                "above_median": float(found.contrasts[number]),
                "peak": (found.peaks[number] * [width, height]).tolist(),
                "region": _in_pixels(box, width, height) if np.isfinite(box).all() else None,
            }
        )

    boxes = []
    picks = answer.picks()
    if picks is not None and question.boxes is not None and found.box_scores is not None:
        for number, pick in enumerate(picks.tolist()):
            boxes.append(
                {
                    "box": _in_pixels(question.boxes[number].numpy(), width, height),
                    "text": question.texts[pick],
                    "cosine": float(found.box_scores[number, pick]),
                }
            )
    return {
        "model": answer.title,
        "random_weights": answer.is_random,
        "image_px": answer.image_px,
        "texts": texts,
        "boxes": boxes,
    }


def pointed_right(question: Question, answer: Answer) -> int:
    """Count the texts whose peak lies in their true box."""
    import torch

    assert question.boxes is not None
    assert question.truth is not None
    hits = pointing_hits(torch.from_numpy(answer.found.maps), question.boxes, question.truth)
    return int(hits.sum())


def figure_of(question: Question, answers: Sequence[Answer]) -> Figure:
    """Draw the answers: maps with the peak as a dot, and named boxes."""
    title = finding(question, answers)
    rows = [_row(question, answer) for answer in answers]
    if len(answers) == 1:
        scores = answers[0].found.scores.tolist()
        return row_figure(question.image, rows[0], question.texts, scores=scores, title=title)

    models = {answer.title: row for answer, row in zip(answers, rows, strict=True)}
    return comparison_figure(question.image, models, question.texts, title=title)


def finding(question: Question, answers: Sequence[Answer]) -> str:
    """Describe the picture in one line."""
    if question.truth is not None:
        counts = [pointed_right(question, answer) for answer in answers]
        told = ", ".join(
            f"{answer.title} {count} of {len(question.texts)}"
            for answer, count in zip(answers, counts, strict=True)
        )
        return f"Words found (the peak lies in the true box): {told}"
    if any(answer.is_random for answer in answers):
        return "Random weights: these maps mean nothing"

    best = int(answers[-1].found.contrasts.argmax())
    text = question.texts[best]
    if len(answers) == 1:
        contrast = answers[0].found.contrasts[best]
        return f"“{text}” stands out by {contrast:.2f} — {answers[0].title}"
    told = ", ".join(f"{answer.title} {answer.found.contrasts[best]:.2f}" for answer in answers)
    return f"How far “{text}” stands out: {told}"


def _row(question: Question, answer: Answer) -> MapRow:
    """Return the maps of one model and the marks on them."""
    found, picks = answer.found, answer.picks()
    named = None
    if picks is not None and question.boxes is not None:
        right = None if question.truth is None else (picks == question.truth.numpy()).tolist()
        names = [question.texts[pick] for pick in picks]
        named = NamedBoxes(question.boxes.numpy(), names, right)

    # The true boxes say more than the regions that were found.
    is_known = question.truth is not None
    frames = question.boxes if is_known else found.boxes
    return MapRow(
        found.maps,
        peaks=found.peaks,
        boxes=frames if question.draw == "box" else None,
        masks=found.masks if question.draw == "mask" else None,
        named=named,
    )


def _in_pixels(box: np.ndarray, width: int, height: int) -> list[int]:
    """Return XYXY in [0, 1] as whole pixels."""
    return [round(value) for value in (box * [width, height, width, height]).tolist()]


def named_right(question: Question, answer: Answer) -> int:
    """Count the boxes whose name is their own text."""
    picks = answer.picks()
    assert picks is not None
    assert question.truth is not None
    return int((picks == question.truth.numpy()).sum())


def summary_of(question: Question, answers: Mapping[str, Answer]) -> list[str]:
    """Return a line for each model on a scene whose truth is known."""
    total = len(question.texts)
    return [
        f"{name}: points at {pointed_right(question, answer)} of {total} words, "
        f"names {named_right(question, answer)} of {total} boxes"
        for name, answer in answers.items()
    ]

"""The Visual CoT benchmark: questions whose answer needs a look at a part of the image; answers are
saved, not judged.

The published scores come from a paid language model that compares answers with the true ones; that
service is no part of this package. What it needs (question, true answer, answer) is in every
record, and so is the overlap of boxes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clim_data import BrokenSample, SkipReport
from clim_data.annotations import VisualCotRecord, VisualCotRecords
from clim_data.files import write_json
from clim_data.pixels import load_rgb
from clim_data.processes import Ranks, gather_objects
from clim_data.streams import rank_share
from clim_eval.evaluators import progress_bar

from flmm.dialogue.visual_cot import LookOptions, visual_answer
from flmm.grounded import GroundedLMM

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
Box = tuple[int, int, int, int]


def read_questions(path: str | Path, skipped: SkipReport | None = None) -> list[VisualCotRecord]:
    """Read the usable questions of one of the benchmark's json files.

    Args:
        path: the json.
        skipped: is told of the questions that cannot be used.

    Raises:
        FileNotFoundError: there is none. ValueError: it has no usable question, or one id twice.
    """
    records = VisualCotRecords.read(path)
    if skipped is not None:
        skipped.extend(records.faults)
    return records.questions


def answer_questions(
    model: GroundedLMM,
    questions: list[VisualCotRecord],
    *,
    images: str | Path,
    out: str | Path,
    focus: str | None = "thought",
    refine: bool = True,
    config: Any = None,
    bar: bool = True,
) -> tuple[dict[str, float], SkipReport]:
    """Answer this rank's share; each record is a line of `out`/answers-RANK.jsonl as soon as it is
    there.

    A run that is started again in the folder goes on where it was. Collective.

    Args:
        images: folder that the questions' image names are below.
        focus, refine: see `visual_answer`.
        config: json value that the answers depend on; a folder is used again only with the same.

    Raises ValueError when the folder has answers of another config.

    Returns ({"box_iou": mean over all questions, "answered": their number}, what could not be
    read).
    """
    rank, world_size = Ranks.of_group()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    claimed = {"focus": focus, "refine": refine, "of": config}
    if rank == 0:
        _claim(out / "config.json", claimed)
    gather_objects(None)  # waits for rank 0
    _claim(out / "config.json", claimed)
    done = {record["key"] for record in saved_answers(out)}
    mine = [
        q
        for q in questions[slice(*rank_share(0, len(questions), rank, world_size))]
        if q.key not in done
    ]
    skipped = SkipReport()
    own = out / f"answers-{rank:04d}.jsonl"
    torn = own.is_file() and not own.read_bytes().endswith(
        b"\n"
    )  # by a kill: what follows begins a line of its own
    with own.open("a", encoding="utf-8") as file:
        file.write("\n" * torn)
        for asked in progress_bar(mine, len(mine), "answering", bar):
            try:
                record = _answer(model, asked, Path(images), focus=focus, refine=refine)
            except BrokenSample as fault:
                skipped.add(fault)
                continue
            file.write(json.dumps(record) + "\n")
            file.flush()
    for faults in gather_objects(skipped.faults):  # also waits for the other ranks' files
        skipped.extend(faults)
    overlaps = [box_iou(r["box"], r["gt_bbox"]) for r in saved_answers(out)]
    mean = sum(overlaps) / len(overlaps) if overlaps else float("nan")
    return {"box_iou": mean, "answered": float(len(overlaps))}, skipped


def _claim(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config, indent=2)
    elif json.loads(path.read_text()) != config:
        raise ValueError(
            f"{path.parent} holds answers of another configuration: use another folder"
        )


def saved_answers(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Read all records in a folder of answers; a line that a killed run left unfinished is passed
    over."""
    for path in sorted(Path(folder).glob("answers-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _answer(
    model: GroundedLMM, asked: VisualCotRecord, images: Path, *, focus: str | None, refine: bool
) -> dict[str, Any]:
    path = images / asked.image
    if ".." in Path(asked.image).parts or not path.is_file():
        raise BrokenSample("missing image", asked.key, str(path))
    image = load_rgb(path, name=asked.key)
    look = LookOptions(focus=focus, refine=refine, suffix=SHORT_ANSWER)
    said = visual_answer(model, image, asked.question, look=look)
    return {
        "key": asked.key,
        "image": asked.image,
        "question": asked.question,
        "thought": said.thought,
        "box": list(said.box),
        "gt_bbox": list(asked.box),
        "answer": said.answer,
        "gt": asked.answer,
    }


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two XYXY boxes, 0 where both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - inside
    return inside / union if union > 0 else 0.0

"""The Visual CoT benchmark: questions whose answer needs a look at a part of the image.

Answers are saved one by one, so that a run can be continued; `flmm.evaluation.viscot_scores` scores
them.
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
from flmm.pictures.orientation import as_stored

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


def read_questions(path: str | Path, skipped: SkipReport | None = None) -> list[VisualCotRecord]:
    """Read the usable questions of one of the benchmark's json files.

    Args:
        path: the json.
        skipped: receives the unusable questions.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has no usable question, or one id twice.
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
) -> SkipReport:
    """Answer this rank's share; each record is written to `out`/answers-RANK.jsonl at once.

    A run that is started again in the folder continues. Collective.

    Args:
        images: folder that the questions' image names are below.
        focus, refine: see `LookOptions`.
        config: json value that the answers depend on; a folder is used again only with the same.

    Returns:
        The questions that could not be answered, of all ranks.

    Raises:
        ValueError: the folder has answers of another config.
    """
    ranks = Ranks.of_group()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    claimed = {"focus": focus, "refine": refine, "of": config}
    if ranks.is_first:
        _claim(out / "config.json", claimed)
    gather_objects(None)  # waits for rank 0
    _claim(out / "config.json", claimed)

    done = {record["key"] for record in saved_answers(out)}
    share = slice(*rank_share(0, len(questions), ranks.rank, ranks.world_size))
    mine = [question for question in questions[share] if question.key not in done]
    look = LookOptions(focus=focus, refine=refine, suffix=SHORT_ANSWER)
    skipped = SkipReport()
    with LineFile(out / f"answers-{ranks.rank:04d}.jsonl") as file:
        for asked in progress_bar(mine, len(mine), "answering", bar):
            try:
                file.add(_answer(model, asked, Path(images), look))
            except BrokenSample as fault:
                skipped.add(fault)
    for faults in gather_objects(skipped.faults):  # also waits for the other ranks' files
        skipped.extend(faults)
    return skipped


def saved_answers(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Read all records in a folder of answers, without lines that a killed run left unfinished."""
    for path in sorted(Path(folder).glob("answers-*.jsonl")):
        yield from read_lines(path)


class LineFile:
    """A file of json lines that grows by whole lines; a line that a kill has cut stays alone."""

    def __init__(self, path: Path):
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        self._file.write("\n" * torn)

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, record: dict[str, Any]) -> None:
        """Write one record; it is in the file when this returns."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a `LineFile`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record


def _claim(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config, indent=2)
    elif json.loads(path.read_text()) != config:
        raise ValueError(
            f"{path.parent} holds answers of another configuration: use another folder"
        )


def _answer(
    model: GroundedLMM, asked: VisualCotRecord, images: Path, look: LookOptions
) -> dict[str, Any]:
    path = images / asked.image
    if not path.is_file():
        raise BrokenSample("missing image", asked.key, str(path))
    image = as_stored(load_rgb(path, name=asked.key))  # the boxes are in these pixels
    try:
        seen = visual_answer(model, image, asked.question, look=look)
    except BrokenSample as fault:  # such as a picture of an unusable shape
        raise BrokenSample(fault.reason, asked.key, fault.detail) from None
    except ValueError as fault:  # such as a question that is longer than the context
        raise BrokenSample("unusable question", asked.key, str(fault)) from None
    return {
        "key": asked.key,
        "image": asked.image,
        "question": asked.question,
        "thought": seen.thought,
        "box": list(seen.box),
        "gt_bbox": list(asked.box),
        "answer": seen.answer,
        "gt": asked.answer,
    }

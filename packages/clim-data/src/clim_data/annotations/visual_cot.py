"""Questions of the Visual CoT benchmark (arXiv 2403.16999), as checked records."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clim_data.annotations.ids import shorten
from clim_data.faults import BrokenSample
from clim_data.files.names import leads_out
from clim_data.files.text import decode_text

BAD = "bad question"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ASKS_FOR_BOX = re.compile(r"Please provide the bounding box coordinate[^.]*\.")


class VisualCotRecord(NamedTuple):
    """A question.

    key: file and question id, one per question. image: name below the images' folder. box: XYXY in
    pixels of the part that matters.
    """

    key: str
    image: str
    question: str
    answer: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class VisualCotRecords:
    """The usable questions of a file, and one fault for each skipped question."""

    questions: list[VisualCotRecord]
    faults: list[BrokenSample]

    @classmethod
    def read(cls, path: str | Path) -> "VisualCotRecords":
        """Read one of the benchmark's json files.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it has no usable question, or two questions have one id.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no questions {path}: `clim-data doctor` says where they come from"
            )
        try:
            records = json.loads(decode_text(path.read_bytes(), str(path)))
        except (ValueError, RecursionError) as fault:
            raise ValueError(_no_questions(path, fault)) from None

        questions: dict[str, VisualCotRecord] = {}
        faults = []
        for place, record in enumerate(records if isinstance(records, list) else [records]):
            try:
                question = _question(path.stem, place, record, f"{path.name}, question {place + 1}")
            except BrokenSample as fault:
                faults.append(fault)
                continue
            # Answers are saved under the key: the second of two equal ones would count as answered.
            if question.key in questions:
                raise ValueError(
                    f"{path} has the question id of {question.key} twice: give each question its "
                    "own question_id"
                )
            questions[question.key] = question
        if not questions:
            raise ValueError(_no_questions(path, faults[0] if faults else "it is empty"))
        return cls(list(questions.values()), faults)


def _no_questions(path: Path, fault: object) -> str:
    return f"{path} is not a file of the Visual CoT benchmark ({fault}): give one of its json"


def _question(stem: str, place: int, record: Any, name: str) -> VisualCotRecord:
    if not isinstance(record, dict):
        raise BrokenSample(BAD, name, f"{shorten(record)} is no object")
    turns = record.get("conversations")
    texts: list[Any] = []
    if isinstance(turns, list):
        texts = [turn.get("value") for turn in turns if isinstance(turn, dict)]
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise BrokenSample(BAD, name, "conversations has no question and answer")

    image = record.get("image")
    if not isinstance(image, list) or len(image) < 2 or not set(map(type, image[:2])) <= {str}:
        raise BrokenSample(BAD, name, f"image is {shorten(image)}, not two names")
    if leads_out(image[0]):
        raise BrokenSample("path outside the folder", name, image[0])

    corners = [float(number) for number in _NUMBER.findall(image[1].rpartition("###")[2])]
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise BrokenSample("bad box", name, f"{shorten(image[1])} ends in no box of four numbers")
    if min(corners) >= 0 and max(corners) <= 1:
        detail = f"box {corners} is within 0..1: give [left, top, right, bottom] in pixels"
        raise BrokenSample("bad box", name, detail)
    left, top, right, bottom = map(int, corners)
    if not (right > left and bottom > top and right > 0 and bottom > 0):
        raise BrokenSample("bad box", name, f"box {corners} has no area in whole pixels")

    asked = _ASKS_FOR_BOX.sub("", texts[0].replace("<image>", "")).strip()
    key = f"{stem}-{record.get('question_id', place)}"
    return VisualCotRecord(key, image[0], asked, texts[-1], (left, top, right, bottom))

"""ReasonSeg as samples: an image, a question that has to be thought about, and the answer's mask.

Letters: H W size of the image in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

from clim_data.annotations.reasonseg import IGNORED, TARGET, Polygon, ReasonSegRecord
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.names import image_of_stem
from clim_data.readers.grounding import GroundingSample, Phrase, RecordTable

QUERIES = ("first", "all")


@dataclass(frozen=True)
class ReasonSegMasks:
    """The mask of an answer, drawn from its outlines, the largest first. name: for errors."""

    shapes: tuple[tuple[int, Polygon], ...]
    name: str = "ReasonSeg"

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Draw the target: bool (1, H, W).

        Raises:
            BrokenSample: it has no pixel, or its outlines are in parts of the image.
        """
        found = (self._draw_outlines(size) == TARGET)[None]
        points = np.concatenate([shape for label, shape in self.shapes if label == TARGET])
        if points.max() <= 1:
            detail = "its points are from 0 to 1: multiply them by the size of the image"
            raise BrokenSample("bad outline", self.name, detail)
        if not found.any():
            detail = f"the target has no pixel in the image of {size[1]} x {size[0]}"
            raise BrokenSample("no outline", self.name, detail)
        return found

    def ignored(self, size: tuple[int, int]) -> np.ndarray:
        """Draw the area that is excluded from scores: bool (H, W)."""
        return self._draw_outlines(size) == IGNORED

    def _draw_outlines(self, size: tuple[int, int]) -> np.ndarray:
        canvas = Image.new("L", size[::-1])
        pencil = ImageDraw.Draw(canvas)
        for label, polygon in sorted(self.shapes, key=lambda shape: -_area(shape[1])):
            pencil.polygon(polygon, fill=label, outline=label)
        return np.asarray(canvas)


class ReasoningSegmentation(Dataset):
    """Questions of ReasonSeg as `GroundingSample`s with one phrase, the question.

    A phrase is "plural" in no sample; `is_sentence(key)` distinguishes long questions from short
    phrases.

    Args:
        folder: of one split (train, val, test): NAME.jpg next to NAME.json.
        queries: "first" of an image, as most papers use it, or "all".

    `skipped` names the skipped images.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown rule, or the folder has no usable question.
    """

    def __init__(self, folder: str | Path, *, queries: str = "first"):
        self.folder = Path(folder)
        if queries not in QUERIES:
            raise ValueError(f"queries={queries!r}; legal values are {', '.join(QUERIES)}")
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}: `clim-data doctor --need reasonseg` says where it comes from"
            )
        self.skipped = SkipReport()
        records = []
        for number, path in enumerate(sorted(self.folder.glob("*.json"))):
            try:
                record = ReasonSegRecord.read(path)
                image = image_of_stem(self.folder, path.stem)
            except BrokenSample as fault:
                self.skipped.add(fault)
                continue
            chosen = record.queries if queries == "all" else record.queries[:1]
            for place, query in enumerate(chosen):
                records.append(
                    {
                        "key": f"{path.stem}-{place}" if queries == "all" else path.stem,
                        "image_id": number,
                        "image": image.name,
                        "query": query,
                        "is_sentence": record.is_sentence,
                        "shapes": record.shapes,
                    }
                )
        if not records:
            raise ValueError(
                f"{folder} has no usable question ({self.skipped.summary(3)}): give the folder of "
                "a split, with NAME.json next to NAME.jpg"
            )
        self._table = RecordTable(records)

    def __len__(self) -> int:
        return len(self._table)

    def stamp(self) -> str:
        """Return a text that changes with the questions and their order."""
        return self._table.stamp()

    def __getitem__(self, number: int) -> GroundingSample:
        record = self._table[number]
        phrase = Phrase(record["query"], False, True, (0,))
        return GroundingSample(
            key=record["key"],
            image_id=record["image_id"],
            kind="expressions",
            segments=((record["query"], 0),),
            phrases=(phrase,),
            image=self.folder / record["image"],
            mask_source=ReasonSegMasks(tuple(_with_points(record["shapes"])), record["key"]),
        )

    def long_questions(self) -> dict[str, bool]:
        """Return, by key, whether a question is a sentence, and not a short phrase."""
        found = {}
        for number in range(len(self)):
            record = self._table[number]
            found[record["key"]] = record["is_sentence"]
        return found


def _with_points(shapes: Sequence[Sequence]) -> list[tuple[int, Polygon]]:
    """Turn what json made of polygons back into points."""
    found: list[tuple[int, Polygon]] = []
    for label, polygon in shapes:
        found.append((label, [(x, y) for x, y in polygon]))
    return found


def _area(polygon: Polygon) -> float:
    x, y = np.array(polygon).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)

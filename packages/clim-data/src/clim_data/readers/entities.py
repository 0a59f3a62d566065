"""Flickr30k Entities as samples: a caption whose phrases have boxes.

Letters: N phrases, H W size of the image in pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from clim_data.annotations.box_rules import Corners
from clim_data.annotations.entities import (
    NOT_VISUAL,
    EntityCaption,
    EntityImage,
    read_entity_boxes,
    read_entity_captions,
)
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.names import image_of_stem, inside
from clim_data.files.text import read_lines
from clim_data.pixels.frames import refuse_size
from clim_data.readers.grounding import NO_PHRASE, GroundingSample, Phrase, RecordTable


@dataclass(frozen=True)
class BoxMasks:
    """The boxes of N phrases, XYXY in pixels, one or more of each. size: of the image, as the file
    states it."""

    boxes: tuple[tuple[Corners, ...], ...]
    size: tuple[int, int]
    name: str

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Fill the boxes: bool (N, H, W); BrokenSample for an image of another size."""
        if size != self.size:
            refuse_size(size, self.size, self.name, file="the annotation file")
        masks = np.zeros((len(self.boxes), *size), dtype=bool)
        for mask, boxes in zip(masks, self.boxes, strict=True):
            for x0, y0, x1, y1 in boxes:
                mask[round(y0) : round(y1), round(x0) : round(x1)] = True
        return masks


class FlickrEntities(Dataset):
    """Captions of Flickr30k Entities as `GroundingSample`s, one for each caption.

    Only phrases with a box are phrases of a sample; other words are text between them.
    `mask_source.boxes` has
    the boxes of each phrase: several where it means several things.

    Args:
        images_dir: folder of the Flickr30k images, ID.jpg.
        entities_dir: folder with `Sentences/ID.txt` and `Annotations/ID.xml`.
        split: file with an id a line, such as test.txt; None reads all ids that have annotations.

    `skipped` names skipped images and captions.

    Raises:
        FileNotFoundError: a folder or the file of the split is not there.
        ValueError: there is no usable caption.
    """

    def __init__(
        self,
        images_dir: str | Path,
        entities_dir: str | Path,
        *,
        split: str | Path | None = None,
    ):
        self.images, self.entities = Path(images_dir), Path(entities_dir)
        for folder in (self.images, self.entities / "Sentences", self.entities / "Annotations"):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"no folder {folder}: `clim-data doctor --need flickr30k-entities` says where "
                    "it comes from"
                )
        self.skipped = SkipReport()
        records = []
        for number, name in enumerate(self._ids(split)):
            try:
                records += self._of_image(number, name)
            except BrokenSample as fault:
                self.skipped.add(fault)
        if not records:
            raise ValueError(
                f"{entities_dir} has no usable caption ({self.skipped.summary(3)}): give matching "
                "folders and split"
            )
        self._table = RecordTable(records)

    def _ids(self, split: str | Path | None) -> list[str]:
        if split is not None:
            return list(dict.fromkeys(read_lines(split)))  # an id twice is one image
        return sorted(path.stem for path in (self.entities / "Annotations").glob("*.xml"))

    def _of_image(self, number: int, name: str) -> list[dict]:
        captions = read_entity_captions(inside(self.entities / "Sentences", f"{name}.txt"))
        annotated = read_entity_boxes(inside(self.entities / "Annotations", f"{name}.xml"))
        image = image_of_stem(self.images, name)
        records = []
        for place, caption in enumerate(captions):
            if isinstance(caption, BrokenSample):
                self.skipped.add(caption)
                continue
            record = _record(caption, annotated)
            if not record["boxes"]:
                self.skipped.add(BrokenSample("no phrase", f"{name}, caption {place + 1}"))
                continue
            where = {"key": f"{name}-{place}", "image_id": number, "image": image.name}
            records.append({**where, "size": annotated.size, **record})
        return records

    def __len__(self) -> int:
        return len(self._table)

    def stamp(self) -> str:
        """Return a text that changes with the captions, their boxes and their order."""
        return self._table.stamp()

    def __getitem__(self, number: int) -> GroundingSample:
        record = self._table[number]
        boxes = tuple(tuple(map(tuple, of_phrase)) for of_phrase in record["boxes"])
        phrases = []
        for text, of_phrase in zip(record["phrases"], boxes, strict=True):
            phrases.append(Phrase(text, len(of_phrase) > 1, True, tuple(range(len(of_phrase)))))
        return GroundingSample(
            key=record["key"],
            image_id=record["image_id"],
            kind="narrative",
            segments=tuple((text, owner) for text, owner in record["segments"]),
            phrases=tuple(phrases),
            image=self.images / record["image"],
            mask_source=BoxMasks(boxes, tuple(record["size"]), record["key"]),
        )


def _record(caption: EntityCaption, image: EntityImage) -> dict:
    """Cut a caption into segments: phrases with a box, and the words between them."""
    segments: list[tuple[str, int]] = []
    phrases: list[str] = []
    boxes: list[tuple[Corners, ...]] = []
    end = 0
    for phrase in caption.phrases:
        found = () if phrase.chain == NOT_VISUAL else image.boxes.get(phrase.chain, ())
        if not found:
            continue
        if between := caption.text[end : phrase.start].strip():
            segments.append((between, NO_PHRASE))
        text = caption.text[phrase.start : phrase.end]
        segments.append((text, len(phrases)))
        phrases.append(text)
        boxes.append(found)
        end = phrase.end
    if rest := caption.text[end:].strip():
        segments.append((rest, NO_PHRASE))
    return {"segments": segments, "phrases": phrases, "boxes": boxes}

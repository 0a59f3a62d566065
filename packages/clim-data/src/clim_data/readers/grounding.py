"""Images with text whose phrases have masks: the parts that the narrative and the expression
readers share.

Letters: N phrases, H W size of the image in pixels.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from clim_data.faults import BrokenSample
from clim_data.pixels.decode import load_rgb, open_image, orientation
from clim_data.pixels.frames import refuse_size
from clim_data.pixels.masks import read_segment_ids
from clim_data.pixels.segmentations import decode_segmentation

NO_PHRASE = -1


@dataclass(frozen=True)
class Phrase:
    """A phrase and its meaning.

    text: as written. is_plural: more than one object may be meant. is_thing: countable (a plural
    counts as a thing). objects: ids of the panoptic segments or of the annotations; none where the
    phrase means nothing in the image. sentence_id: of a referring expression, else None.
    """

    text: str
    is_plural: bool
    is_thing: bool
    objects: tuple[int, ...]
    sentence_id: int | None = None


class MaskSource(Protocol):
    """The source of the masks of a sample; masks are decoded on demand."""

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Return the masks, bool (N, H, W), of an image of `size` = (H, W)."""
        ...


@dataclass(frozen=True)
class PanopticMasks:
    """One mask a phrase: the union of its segments in a panoptic png, given as a path or as its
    bytes."""

    png: Path | bytes
    segment_ids: tuple[tuple[int, ...], ...]
    name: str

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Read the masks: bool (N, H, W).

        Raises:
            BrokenSample: the png cannot be read, or is not of `size` = (H, W).
        """
        drawn = read_segment_ids(self.png, self.name)
        if drawn.shape != size:
            raise BrokenSample(
                "size mismatch", self.name, f"{drawn.shape} is not the image's {size}"
            )
        masks = np.zeros((len(self.segment_ids), *size), dtype=bool)
        for mask, ids in zip(masks, self.segment_ids):
            for segment_id in ids:
                pixels = drawn == segment_id
                if not pixels.any():
                    detail = f"id {segment_id} is not in the panoptic png"
                    raise BrokenSample("segment without pixels", self.name, detail)
                mask |= pixels
        return masks


@dataclass(frozen=True)
class CocoMasks:
    """One mask a phrase from COCO polygons or RLE; an empty list of polygons is an empty mask."""

    segmentations: tuple[list | dict, ...]
    size: tuple[int, int]
    name: str

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Decode the masks: bool (N, H, W).

        Raises:
            BrokenSample: one is malformed, or `size` is not the one that the file states.
        """
        if size != self.size:
            refuse_size(size, self.size, self.name, file="the annotation file")
        masks = np.zeros((len(self.segmentations), *size), dtype=bool)
        # Several sentences of one object share its segmentation.
        decoded: dict[int, np.ndarray] = {}
        for mask, segmentation in zip(masks, self.segmentations):
            if segmentation:
                if id(segmentation) not in decoded:
                    decoded[id(segmentation)] = decode_segmentation(segmentation, *size, self.name)
                mask[:] = decoded[id(segmentation)]
        return masks


@dataclass(frozen=True)
class GroundingSample:
    """One image and one text; pixels and masks are decoded on demand.

    key: names the sample in results, the same in every run. kind: "narrative" (a flowing text of
    segments) or "expressions" (each segment stands for itself). segments: (text, phrase index or
    -1), phrases numbered from 0 in order. phrases: N of them. image: path or bytes.
    """

    key: str
    image_id: int
    kind: str
    segments: tuple[tuple[str, int], ...]
    phrases: tuple[Phrase, ...]
    image: Path | bytes
    mask_source: MaskSource

    @property
    def caption(self) -> str:
        """The segments with spaces between them."""
        return " ".join(text for text, _ in self.segments)

    def load_image(self) -> Image.Image:
        """Decode the RGB image, stored orientation; BrokenSample when it cannot be read."""
        return load_rgb(self.image, name=self.key)

    def load(self) -> tuple[Image.Image, np.ndarray]:
        """Decode the RGB image, and the masks at its size, bool (N, H, W).

        Raises:
            BrokenSample: either cannot be read.
        """
        opened = open_image(self.image, self.key)
        image = load_rgb(opened, name=self.key)
        try:
            return image, self.mask_source.masks((image.height, image.width))
        except BrokenSample as fault:
            if fault.reason != "size mismatch" or orientation(opened) == 1:
                raise
            fix = "its EXIF tag turns it: turn its pixels (exiftran), or annotate the stored ones"
            raise BrokenSample(fault.reason, fault.name, f"{fault.detail}; {fix}") from None


class RecordTable:
    """JSON records in one block of bytes: 142,000 of them cost no Python objects, and worker
    processes share them."""

    def __init__(self, records: Iterable[dict]):
        blob, ends = bytearray(), [0]
        for record in records:
            blob += json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
            ends.append(len(blob))
        self._blob = np.frombuffer(bytes(blob), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def stamp(self) -> str:
        """Return a hexadecimal checksum of all records."""
        return hashlib.sha256(self._blob.tobytes()).hexdigest()[:16]

    def __getitem__(self, number: int) -> dict:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return json.loads(self._blob[self._ends[number] : self._ends[number + 1]].tobytes())

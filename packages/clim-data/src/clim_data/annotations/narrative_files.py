"""Narratives of Panoptic Narrative Grounding (arXiv 2109.04988), as checked records."""

from typing import Any, NamedTuple

from clim_data.annotations.ids import Key, id_key, shorten
from clim_data.annotations.tables import flag
from clim_data.faults import BrokenSample

BAD = "malformed narrative"


class NarrativeRecord(NamedTuple):
    """A narrative.

    image: key of its image. segments: (text, ids of panoptic segments, whether several objects are
    meant); a text without ids is no phrase.
    """

    image: Key
    segments: tuple[tuple[str, tuple[int, ...], bool], ...]

    @classmethod
    def of(cls, record: dict, name: str) -> "NarrativeRecord":
        """Check {"image_id", "segments": [{"utterance", "segment_ids", "plural"}]}.

        Raises:
            BrokenSample: a field is missing or of another type.
        """
        image, segments = id_key(record.get("image_id")), record.get("segments")
        if not isinstance(image, int):
            raise BrokenSample(BAD, name, f"image_id is {shorten(record.get('image_id'))}")
        if not isinstance(segments, list):
            raise BrokenSample(BAD, name, f"segments is {shorten(segments)}")
        return cls(image, tuple(_segment(segment, name) for segment in segments))


def _segment(segment: Any, name: str) -> tuple[str, tuple[int, ...], bool]:
    if not isinstance(segment, dict):
        raise BrokenSample(BAD, name, f"segment {shorten(segment)} is no object")
    text, given = segment.get("utterance"), segment.get("segment_ids")
    if not isinstance(text, str) or not isinstance(given, list):
        raise BrokenSample(BAD, name, f"segment {shorten(segment)} has no text or no list of ids")

    ids = []
    for value in given:
        key = id_key(value)
        if not isinstance(key, int):
            raise BrokenSample(BAD, name, f"segment id {shorten(value)} is no whole number")
        ids.append(key)
    return text, tuple(ids), flag(segment.get("plural"), "plural", name)

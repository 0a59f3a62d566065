"""The captions of each sample: from a captions json, from the samples themselves, or none."""

import os
from pathlib import Path

from clim_data.annotations.caption_files import captions_of_images
from clim_data.faults import BrokenSample
from clim_data.files.names import image_file_name
from clim_data.sources.captions import read_captions
from clim_data.sources.shards import RawSample


class CaptionTable:
    """What is said about a sample.

    Args:
        captions_json: COCO captions or a CC3M-style file. Its images are found by file name, or by
            the name's last part without ending where that is unique (which is how shards name their
            samples). None reads what the samples bring: json or txt in a shard, metadata.jsonl or a
            txt beside the image in a folder.
        ignore: True gives no sample a caption.

    Raises:
        FileNotFoundError, ValueError: no such file, or no captions file.
    """

    def __init__(self, captions_json: str | Path | None = None, *, ignore: bool = False):
        if ignore and captions_json is not None:
            raise ValueError(
                "captions are given and to be ignored: pass --captions-json or --no-captions"
            )
        self.ignore = ignore
        self.by_name: dict[str, list[str]] | None = None
        if captions_json is not None:
            self.by_name = _by_name(captions_json)

    def of(self, sample: RawSample) -> list[str]:
        """Its captions with text; none when there are none. BrokenSample for a json or txt that
        cannot be read."""
        if self.ignore:
            return []
        if self.by_name is not None:
            stem = _stem(sample.key)
            return self.by_name.get(sample.key, self.by_name.get(stem, []))
        try:
            return read_captions(sample)
        except BrokenSample as fault:
            if fault.reason != "empty caption":
                raise
            return []


def _by_name(captions_json: str | Path) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    stems: dict[str, list[list[str]]] = {}
    for image, captions in captions_of_images(captions_json):
        texts = [text.strip() for text in captions if isinstance(text, str) and text.strip()]
        name = os.path.normpath(image_file_name(image).replace("\\", "/"))
        by_name.setdefault(name, []).extend(texts)
        stems.setdefault(_stem(name), []).append(texts)
    for stem, groups in stems.items():
        if len(groups) == 1:
            by_name.setdefault(stem, groups[0])
    return by_name


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]

"""Flickr30k Entities (arXiv 1505.04870): phrases of captions, and their boxes."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from clim_data.annotations.box_rules import Corners, check_box
from clim_data.faults import BrokenSample
from clim_data.files.text import decode_text

_PHRASE = re.compile(r"\[/EN#(\d+)/(\S+) ([^\]]+)\]")
NOT_VISUAL = "0"


@dataclass(frozen=True)
class EntityPhrase:
    """A phrase of a caption. start, end: its characters. chain: id of the thing that the phrase
    means, the same in all captions of an image; "0" for things that cannot be seen. kinds: such as
    ("people",)."""

    start: int
    end: int
    chain: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class EntityCaption:
    """A caption without its marks, and its phrases in order."""

    text: str
    phrases: tuple[EntityPhrase, ...]


@dataclass(frozen=True)
class EntityImage:
    """An image. size: (height, width). boxes: chain -> XYXY in pixels, right and bottom edge
    exclusive."""

    size: tuple[int, int]
    boxes: dict[str, tuple[Corners, ...]]


def read_entity_captions(path: str | Path) -> list[EntityCaption | BrokenSample]:
    """Read the captions of an image, `Sentences/ID.txt`; a damaged caption is a fault in its place.

    Raises:
        BrokenSample: the file cannot be read, or has no caption.
    """
    path = Path(path)
    try:
        lines = decode_text(path.read_bytes(), str(path)).splitlines()
    except (OSError, ValueError) as fault:
        raise BrokenSample("bad captions", path.name, str(fault)) from None
    captions: list[EntityCaption | BrokenSample] = []
    for line in filter(None, map(str.strip, lines)):
        try:
            captions.append(_caption(line))
        except ValueError as fault:
            name = f"{path.name}, caption {len(captions) + 1}"
            captions.append(BrokenSample("bad caption", name, str(fault)))
    if not captions:
        raise BrokenSample("bad captions", path.name, "it has no caption")
    return captions


def _caption(line: str) -> EntityCaption:
    """Cut the marks out of a caption; ValueError for a damaged mark."""
    text, phrases, end = "", [], 0
    for mark in _PHRASE.finditer(line):
        text += line[end : mark.start()]
        words = mark[3].strip()
        if not words:
            raise ValueError(f"a mark has no phrase: {mark[0]}")
        kinds = tuple(mark[2].split("/"))
        phrases.append(EntityPhrase(len(text), len(text) + len(words), mark[1], kinds))
        text += words
        end = mark.end()
    text += line[end:]
    if "[/EN#" in text:
        # Read on, the mark itself would be words of the caption.
        raise ValueError(f"a mark has no end: {text[text.index('[/EN#') :][:80]}")
    return EntityCaption(text, tuple(phrases))


def read_entity_boxes(path: str | Path) -> EntityImage:
    """Read the boxes of an image, `Annotations/ID.xml`.

    Its corners are whole numbers from 1 on, both inclusive. Chains without a box (`nobndbox`, a
    whole scene) are not in the result.

    Raises:
        BrokenSample: the file is damaged, or a box is invalid.
    """
    path = Path(path)
    try:
        # As text: in UTF-16 the bytes of a declaration are others.
        text = decode_text(path.read_bytes(), path.name)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise BrokenSample(
                "bad boxes", path.name, "it declares entities, which none of them do"
            )
        root = ElementTree.fromstring(text)
        size = (_number(root, "size/height"), _number(root, "size/width"))

        boxes: dict[str, list[Corners]] = {}
        for number, item in enumerate(root.iter("object"), start=1):
            box = item.find("bndbox")
            if box is None:
                continue
            left, top, right, bottom = (
                _number(box, corner) for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            given = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            corners, _ = check_box(given, size, f"{path.name}, object {number}")
            for name in item.findall("name"):
                boxes.setdefault((name.text or "").strip(), []).append(corners)
    except (OSError, ValueError, ElementTree.ParseError) as fault:
        raise BrokenSample("bad boxes", path.name, str(fault)) from None
    return EntityImage(size, {chain: tuple(found) for chain, found in boxes.items()})


def _number(item: ElementTree.Element, path: str) -> int:
    text = item.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return int(text)

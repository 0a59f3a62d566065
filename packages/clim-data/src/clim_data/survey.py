"""Survey of a user's folder: its contents, and the trainings for which they are enough."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clim_data.faults import BrokenSample, SkipReport
from clim_data.pixels.decode import load_rgb, open_image
from clim_data.sources.folders import FolderIndex
from clim_data.sources.walk import walk_folder

# Number of images whose headers are read; pixels are read only with `check_images`, of all images.
MOST_HEADERS = 2000
# Larger annotation files are not parsed here.
MOST_JSON_BYTES = 300_000_000


@dataclass(frozen=True)
class AnnotationFile:
    """A COCO-style json found next to the images.

    kind: "boxes", "captions" or "panoptic". entries: of its list "annotations". classes: names of
    its list "categories".
    """

    path: str
    kind: str
    entries: int
    classes: int


@dataclass(frozen=True)
class Survey:
    """The contents of a folder.

    images: files that can be read (with `check_images`: decoded); of more than 2,000 images,
    headers were read of 2,000 only. captioned: images with captions in the folder. caption_source:
    "txt", the name of a table, or "" without captions. smallest: (width, height) in pixels
    of the image with the fewest pixels, None without images. shards: tars. annotations: COCO-style
    files in the folder or one folder below. faults: unusable files, by name.
    """

    folder: str
    images: int
    captioned: int
    caption_source: str
    smallest: tuple[int, int] | None
    shards: int
    annotations: tuple[AnnotationFile, ...]
    faults: SkipReport


def survey_folder(folder: str | Path, *, check_images: bool = False) -> Survey:
    """Count the images, captions, shards and annotation files in a folder and below it.

    Images are opened by their headers; `check_images` decodes them.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds your images")

    content = walk_folder(folder)
    index = FolderIndex(str(folder), np.array(content.images, dtype=np.str_))
    faults = SkipReport([*content.faults, *index.table_faults])
    smallest, unreadable = _look_at_images(folder, index.keys.tolist(), faults, check_images)
    return Survey(
        folder=str(folder),
        images=len(index) - unreadable,
        captioned=int(index.has_text.sum()),
        caption_source=_caption_source(index),
        smallest=smallest,
        shards=len(content.shards),
        annotations=tuple(_annotation_files(folder)),
        faults=faults,
    )


def _caption_source(index: FolderIndex) -> str:
    if not index.has_text.any():
        return ""
    return "txt" if index.table_file is None else index.table_file.name


def _look_at_images(
    folder: Path, names: list[str], faults: SkipReport, decode: bool
) -> tuple[tuple[int, int] | None, int]:
    """Return the smallest size, and the number of unreadable images."""
    # All of a small folder, an even choice of a large one.
    step = 1 if decode else max(1, -(-len(names) // MOST_HEADERS))
    smallest: tuple[int, int] | None = None
    unreadable = 0
    for name in names[::step]:
        try:
            with open_image(folder / name, name) as image:
                size = image.size
            if decode:
                load_rgb(folder / name, name=name)
        except BrokenSample as fault:
            faults.add(fault)
            unreadable += 1
            continue
        if smallest is None or size[0] * size[1] < smallest[0] * smallest[1]:
            smallest = size
    return smallest, unreadable


def _annotation_files(folder: Path) -> Iterable[AnnotationFile]:
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if not path.is_file() or path.stat().st_size > MOST_JSON_BYTES:
            continue
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        found = _judge(str(path), content)
        if found is not None:
            yield found


def _judge(path: str, content: Any) -> AnnotationFile | None:
    """Return the kind of a json's annotations, by its first record; None if it has no COCO
    layout."""
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations or not isinstance(annotations[0], dict):
        return None
    categories = content.get("categories")
    classes = len(categories) if isinstance(categories, list) else 0
    kinds = {"bbox": "boxes", "caption": "captions", "segments_info": "panoptic"}
    for key, kind in kinds.items():
        if key in annotations[0]:
            return AnnotationFile(path, kind, len(annotations), classes)
    return None


def survey_text(survey: Survey) -> str:
    """Write a survey as text: the contents, the unusable files, and the possible trainings."""
    lines = [_headline(survey)]
    lines += [
        f"    {file.path}: {file.entries:,} {'images' if file.kind == 'panoptic' else file.kind}"
        + (f" of {file.classes:,} classes" if file.classes else "")
        for file in survey.annotations
    ]
    if survey.faults.total:
        lines += [f"    {line}" for line in survey.faults.summary().splitlines()]

    trainings = list(_trainings(survey))
    if trainings:
        width = max(len(method) for method, _ in trainings)
        lines += ["  enough for"]
        lines += [f"    {method:{width}}  {command}" for method, command in trainings]
    return "\n".join(lines)


def _headline(survey: Survey) -> str:
    if not survey.images:
        shards = f", {survey.shards:,} shards" if survey.shards else ""
        return f"{survey.folder}: no images of its own{shards}"
    source = f" ({survey.caption_source})" if survey.captioned else ""
    assert survey.smallest is not None
    width, height = survey.smallest
    return (
        f"{survey.folder}: {survey.images:,} images, {survey.captioned:,} with captions{source}, "
        f"smallest {width}x{height}"
    )


def _trainings(survey: Survey) -> Iterable[tuple[str, str]]:
    """The methods for which the folder is enough, each with its command."""
    folder = shlex.quote(survey.folder)
    train = "clim-train {} --data.images " + folder
    by_kind = {file.kind: shlex.quote(file.path) for file in survey.annotations}
    if survey.shards and not survey.images:
        shards = shlex.quote(f"{survey.folder}/*.tar")
        yield "CLIM", f"clim-train clim_coco_vitb16 --data.shards {shards}"
    if not survey.images:
        return

    if survey.captioned:
        yield "CLIM", train.format("clim_coco_vitb16")
    elif "captions" in by_kind:
        captions = by_kind["captions"]
        pack = f"clim-data pack coco-captions --images {folder} --captions-json {captions}"
        yield "CLIM", f"{pack} --out shards; then --data.shards 'shards/*.tar'"
    yield "CLIPSelf", train.format("clipself_coco_patches_evab16")
    if "boxes" in by_kind:
        boxes = f" --data.boxes {by_kind['boxes']}"
        yield "RegionCLIP-style", train.format("regionclip_coco_evab16") + boxes

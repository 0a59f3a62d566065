"""Phrases whose presence is known, from files of a user: json lines, or references of gRefCOCO."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from clim_data import BrokenSample, GroundingSample, SkipReport
from clim_data.files import read_lines
from clim_data.pixels import decode_segmentation, load_rgb
from clim_data.sources import SampleStore, names_of_samples

from flmm.text.phrases import check_phrases
from flmm.training.presence import HARD, PRESENT, Probe, ProbedImage

FIELDS = ("image", "phrase", "present", "segmentation")
EXAMPLE = (
    '{"image": "street.jpg", "phrase": "a red car", "segmentation": ...} or '
    '{"image": "street.jpg", "phrase": "a blue car", "present": false}'
)


@dataclass(frozen=True)
class ProbeRecord:
    """A line of a file. segmentation: polygons or run lengths of COCO; None for an absent
    phrase."""

    image: str
    phrase: str
    segmentation: Any = None


def read_probe_records(path: Path) -> list[ProbeRecord]:
    """Read phrases of images, one json object a line.

    A phrase that is there has a "segmentation"; one that is not has "present": false.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged, the same phrase of an image is there twice, or there is none.
    """
    records: dict[tuple[str, str], ProbeRecord] = {}
    for number, line in enumerate(read_lines(path), start=1):
        record = _record_of(line, f"{path}, phrase {number}")
        key = record.image, record.phrase
        if key in records:
            raise ValueError(
                f"{path}, phrase {number}: {record.phrase!r} of {record.image} is there twice: "
                "keep it once"
            )
        records[key] = record
    if not records:
        raise ValueError(f"{path} holds no phrase: write lines such as {EXAMPLE}")
    return list(records.values())


def _record_of(line: str, name: str) -> ProbeRecord:
    """Check a line; `name` is what errors call it."""
    try:
        content = loads(line)
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{name} is no json ({fault}): write a line such as {EXAMPLE}") from None
    if not isinstance(content, dict) or (unknown := content.keys() - {*FIELDS}):
        what = f"has {sorted(unknown)}" if isinstance(content, dict) else "is no object"
        raise ValueError(f"{name} {what}: write a line such as {EXAMPLE}")
    if not all(isinstance(content.get(field), str) for field in ("image", "phrase")):
        raise ValueError(f'{name} needs the texts "image" and "phrase": see {EXAMPLE}')

    present = content.get("present", True)
    segmentation = content.get("segmentation")
    if not isinstance(present, bool) or present != bool(segmentation):
        raise ValueError(
            f'{name}: a phrase that is there needs a "segmentation", one that is not needs '
            '"present": false and no segmentation'
        )
    try:
        (phrase,) = check_phrases([content["phrase"]])
    except ValueError as fault:
        raise ValueError(f"{name}: {fault}") from None
    return ProbeRecord(content["image"], phrase, segmentation)


class ProbedImages(Protocol):
    """Images with phrases whose presence is known, and what could not be used of them."""

    skipped: SkipReport

    def __iter__(self) -> Iterator[ProbedImage]: ...


class ProbedFile:
    """The images of a folder (or shards) with the phrases of a file of json lines.

    Masks lie on the pixels of an image as its file stores them, as COCO's do. Absent phrases count
    as hard: they were written for this image.

    Args:
        images: folder or shards.
        path: see `read_probe_records`.
        seed: of the texts that the phrases of an image are put into.
        limit: number of images.

    Raises:
        FileNotFoundError, ValueError: as `read_probe_records`, or no image has a phrase.
    """

    def __init__(self, images: str, path: Path, *, seed: int = 0, limit: int | None = None):
        self._records: dict[str, list[ProbeRecord]] = {}
        for record in read_probe_records(path):
            self._records.setdefault(record.image, []).append(record)
        self._store = SampleStore(images, texts=False)
        asked = list(self._records)
        matches = names_of_samples(self._store).match(asked)
        self.skipped = SkipReport(self._store.skipped.faults)
        self._places: list[tuple[int, str]] = []
        for place, name in zip(matches.places, asked, strict=True):
            if place < 0:
                detail = "phrases, but no image of this name"
                self.skipped.add(BrokenSample("missing image", name, detail))
            else:
                self._places.append((int(place), name))
        if not self._places:
            raise ValueError(
                f"no image of {images} has a phrase in {path} ({self.skipped.summary(3)}): "
                "check the folder and the names"
            )
        self._places = self._places[:limit]
        self._seed = seed

    def __iter__(self) -> Iterator[ProbedImage]:
        for number, (place, name) in enumerate(self._places):
            rng = np.random.default_rng((self._seed, number))
            try:
                image = load_rgb(self._store.read(place).image, name=name)
                size = image.height, image.width
                probes = [_probe_of(record, size) for record in self._records[name]]
            except BrokenSample as fault:
                self.skipped.add(BrokenSample(fault.reason, name, fault.detail))
                continue
            yield ProbedImage.of(image, probes, rng)


def _probe_of(record: ProbeRecord, size: tuple[int, int]) -> Probe:
    if record.segmentation is None:
        return Probe(record.phrase, HARD)
    name = f"{record.image}, {record.phrase!r}"
    return Probe(record.phrase, PRESENT, decode_segmentation(record.segmentation, *size, name))


class Samples(Protocol):
    """A numbered source of samples, such as the readers of clim-data."""

    skipped: SkipReport

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> GroundingSample: ...


class ProbedSamples:
    """The images of a data set with expressions for things and for nothing, such as gRefCOCO.

    Expressions for nothing count as hard: gRefCOCO's were written for their image.

    Args:
        data: the samples of an image may be several.
        seed: of the texts that the phrases of an image are put into.
        limit: number of images.

    Raises:
        ValueError: no sample can be read.
    """

    def __init__(self, data: Samples, *, seed: int = 0, limit: int | None = None):
        self._data, self._seed = data, seed
        self.skipped = data.skipped
        of_image: dict[int, list[int]] = {}
        for number in range(len(data)):
            try:
                of_image.setdefault(data[number].image_id, []).append(number)
            except BrokenSample as fault:
                self.skipped.add(fault)
        if not of_image:
            raise ValueError(f"no sample can be read ({self.skipped.summary(3)}): check the data")
        self._numbers = list(of_image.values())[:limit]

    def __iter__(self) -> Iterator[ProbedImage]:
        for number, samples in enumerate(self._numbers):
            rng = np.random.default_rng((self._seed, number))
            probed = self._image(samples, rng)
            if probed is not None:
                yield probed

    def _image(self, samples: Sequence[int], rng: np.random.Generator) -> ProbedImage | None:
        """Return an image with the phrases of its readable samples; None where none is."""
        probes: dict[str, Probe] = {}
        image = None
        for place in samples:
            sample = self._data[place]
            try:
                image, masks = sample.load()
            except BrokenSample as fault:
                self.skipped.add(fault)
                continue
            for phrase, mask in zip(sample.phrases, masks, strict=True):
                is_present = bool(phrase.objects)
                probe = (
                    Probe(phrase.text, PRESENT, mask) if is_present else Probe(phrase.text, HARD)
                )
                probes.setdefault(phrase.text, probe)
        return None if image is None else ProbedImage.of(image, list(probes.values()), rng)

"""The phrases of a whole folder, grounded into one COCO json: in parts, so that a stopped job goes
on, and several processes can share the images.

Letters: N phrases of an image, H W its pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from clim_data import BrokenSample, SkipReport
from clim_data.processes import PartJob, Ranks, do_parts, load_in_workers
from clim_eval.pictures import write_png
from tqdm import tqdm

from flmm.grounders.asked import LoadedImage, LoadedImages, PhraseImages
from flmm.grounders.batches import IMAGES_PER_PASS, BatchGrounder, PhraseItem
from flmm.grounders.grounder import NOT_IN_PICTURE, Grounder, ScoredMasks
from flmm.grounders.images import (
    PhraseMarks,
    labels_of_phrases,
    masks_as_json,
    masks_to_draw,
)
from flmm.pictures.masks import grounding_figure
from flmm.pictures.orientation import turn_back, turn_places_back

# What an annotation has of the record of a phrase.
SHAPE = ("segmentation", "area", "bbox", "boxes", "points")
PARTS = 64
"""Parts of a large job; a job that is killed loses one of each process."""


@dataclass(frozen=True)
class FolderOptions:
    """Options of grounding the images of a folder.

    Args:
        batch_size: texts, and so at most images, of one pass of the LMM.
        workers: processes that load images.
        each_alone: the LMM reads each phrase by itself.
        min_score: phrases with a lower score are not found.
        pictures: folder for a picture of each image with its masks; None draws none.
        overwrite: replace an output of other input or options.
        ranks: number of this process, and the number of processes that share the images.
        patience: seconds without a new part after which rank 0 names the missing ranks.

    Raises:
        ValueError: an option is out of range.
    """

    batch_size: int = IMAGES_PER_PASS
    workers: int = 2
    each_alone: bool = False
    min_score: float = 0.0
    pictures: Path | None = None
    overwrite: bool = False
    ranks: Ranks = field(default_factory=Ranks)
    patience: float = 1800.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ValueError(
                f"batch_size={self.batch_size} must be at least 1 and workers={self.workers} at "
                "least 0"
            )
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score} must be a number from 0 to 1")


@dataclass
class FolderReport:
    """The result of a folder. finished: it had been grounded before, and nothing was done.

    images, phrases, found: numbers of the grounded images, of their phrases, and of the masks.
    absent: number of phrases that are judged not to be in their picture. skipped: unusable images.
    """

    output: Path
    finished: bool = False
    images: int = 0
    phrases: int = 0
    found: int = 0
    absent: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)

    def lines(self) -> list[str]:
        """Return it as lines for a terminal."""
        if self.finished:
            return [
                f"{self.output} is there already, made from the same images, phrases and options "
                "(remove it to ground them again)"
            ]
        masks = f"{self.found} masks for {self.phrases} phrases of {self.images} images"
        absent = f"; {self.absent} are {NOT_IN_PICTURE}" if self.absent else ""
        lines = [f"{self.output}: {masks}{absent}"]
        if self.skipped.total:
            lines.append(self.skipped.summary())
        return lines


@dataclass(frozen=True)
class FolderJob:
    """One job: its images, its output, and its options.

    info: plain values that, with the images and phrases, decide the result; an output that begins
    with the same is the finished job.
    """

    images: PhraseImages
    output: Path
    info: Mapping[str, Any]
    options: FolderOptions = field(default_factory=FolderOptions)

    @property
    def part_images(self) -> int:
        """Number of images of a part: whole batches, for any number of processes."""
        batch = self.options.batch_size
        return batch * max(1, len(self.images.asked) // (PARTS * batch))

    @property
    def parts(self) -> PartJob:
        """The parts of the job on the disk."""
        settings = self.options
        info = {
            **self.info,
            "images": self.images.stamp(),
            "each_alone": settings.each_alone,
            "min_score": settings.min_score,
        }
        rank, world_size = settings.ranks
        count = -(-len(self.images.asked) // self.part_images)
        return PartJob(self.output, info, count, rank, world_size, patience=settings.patience)

    def finished(self) -> bool:
        """Return whether the output exists already; call it before a model is loaded.

        Raises:
            ValueError: there is an output of another job, and `overwrite` is not set.
        """
        return self.parts.finished(overwrite=self.options.overwrite)

    def run(self, grounder: Grounder) -> FolderReport:
        """Ground this process's share of a job that is not `finished`.

        Rank 0 then waits for the others and writes the output.

        Raises:
            ValueError: no image could be used, or a rank is missing.
        """
        parts = self.parts
        work = _Work(self, parts, grounder)
        report = FolderReport(self.output)
        if do_parts(parts, work, images=len(self.images.asked), part_images=self.part_images):
            self._join(parts, report)
        return report

    def _join(self, parts: PartJob, report: FolderReport) -> None:
        """Write the output from the parts of all processes."""
        report.skipped.extend(self.images.faults)
        for part in parts.read():
            report.images += len(part["images"])
            report.found += len(part["annotations"])
            report.phrases += len(part["annotations"]) + len(part["not_found"])
            told = [*part["annotations"], *part["not_found"]]
            report.absent += sum(not entry.get("in_picture", True) for entry in told)
            report.skipped.extend(BrokenSample(*fault) for fault in part["skipped"])
        if not report.images:
            parts.discard()
            raise ValueError(f"no image can be read: {report.skipped.summary(3)}; check them")

        def every(name: str) -> Iterator[dict]:
            return (entry for part in parts.read() for entry in part[name])

        skipped = [
            {"reason": fault.reason, "name": fault.name, "detail": fault.detail}
            for fault in report.skipped.faults
        ]
        names = enumerate(self.images.categories, start=1)
        parts.join(
            {
                "skipped": skipped,
                "categories": [{"id": number, "name": name} for number, name in names],
                "images": every("images"),
                "not_found": every("not_found"),
                "annotations": (
                    {"id": number, **entry} for number, entry in zip(count(1), every("annotations"))
                ),
            }
        )


class _Work:
    """Grounds the parts of a process, with the same loading processes for all of them."""

    def __init__(self, job: FolderJob, parts: PartJob, grounder: Grounder):
        self._job = job
        options = job.options
        self._batches = BatchGrounder(
            grounder, batch_size=options.batch_size, each_alone=options.each_alone
        )
        size = job.part_images
        mine = [
            number
            for part in parts.remaining_parts()
            for number in job.images.asked[part * size : (part + 1) * size]
        ]
        self._loaded = load_in_workers(
            LoadedImages(job.images, self._batches.prepare, options.pictures is not None),
            mine,
            workers=min(options.workers, len(mine)),
            collate=_as_it_is,
        )

    def __call__(self, places: Sequence[int], bar: tqdm) -> dict[str, list]:
        """Return the record of the next part, which has these places among the asked images."""
        part = Part(self._job.images, self._job.options)
        items = part.usable((next(self._loaded) for _ in places), bar)
        for item, found in self._batches(items):
            part.add(item, found)
        return part.record()


class Part:
    """The record of one part while it is made."""

    def __init__(self, images: PhraseImages, options: FolderOptions):
        self.images, self.options = images, options
        self.numbers = {name: number for number, name in enumerate(images.categories, start=1)}
        self.loaded: dict[int, LoadedImage] = {}  # those that are not grounded yet
        self.entries: dict[int, dict[str, list]] = {}
        self.skipped: list[BrokenSample] = []

    def usable(
        self, loaded: Iterable[LoadedImage | BrokenSample], bar: tqdm
    ) -> Iterator[PhraseItem]:
        """Yield the items of images that can be read, and note the others."""
        for image in loaded:
            bar.update()
            if isinstance(image, BrokenSample):
                self.skipped.append(image)
            else:
                self.loaded[image.item.number] = image
                yield image.item

    def add(self, item: PhraseItem, found: ScoredMasks) -> None:
        """Note the masks of an image; they lie on its pixels as the file stores them, where tools
        for COCO files expect them."""
        phrases = item.phrases
        if self.images.classes is not None:
            found, phrases = self.images.classes.masks(found), self.images.classes.names
        loaded = self.loaded.pop(item.number)
        upright = found.binary(self.options.min_score)
        scores, in_picture = found.scores.tolist(), found.in_picture()
        if self.options.pictures is not None and loaded.upright is not None:
            drawn = masks_to_draw(upright.cpu().numpy(), in_picture)
            figure = grounding_figure(loaded.upright, drawn, labels_of_phrases(phrases, scores))
            path = self.options.pictures / f"{self.images.names[item.number]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, figure)

        places = None
        if found.places is not None:
            places = [turn_places_back(own, item.size, loaded.turn) for own in found.places]
        stored = turn_back(upright, loaded.turn).cpu().numpy()
        marks = PhraseMarks(in_picture, places)
        records = masks_as_json(stored, phrases, scores, marks)["phrases"]
        self.entries[item.number] = self._entries(item.number, stored.shape[1:], records)

    def _entries(
        self, number: int, size: tuple[int, ...], records: Sequence[Mapping[str, Any]]
    ) -> dict[str, list]:
        """Write the records of an image's phrases, see `masks_as_json`, as COCO has them."""
        height, width = size
        image_id = number + 1
        name = self.images.names[number]
        image = {"id": image_id, "file_name": name, "height": height, "width": width}

        annotations, not_found = [], []
        for record in records:
            entry = {"image_id": image_id, "category_id": self.numbers[record["phrase"]]}
            entry |= {key: record[key] for key in ("score", "in_picture") if key in record}
            if record["found"]:
                shape = {key: record[key] for key in SHAPE if key in record}
                annotations.append({**entry, **shape, "iscrowd": 0})
            else:
                not_found.append(entry)
        return {"images": [image], "annotations": annotations, "not_found": not_found}

    def record(self) -> dict[str, list]:
        """Return the part as plain data."""
        joined: dict[str, list] = {"images": [], "annotations": [], "not_found": []}
        for number in sorted(self.entries):
            for name, entries in self.entries[number].items():
                joined[name] += entries
        faults = [[fault.reason, fault.name, fault.detail] for fault in self.skipped]
        return {**joined, "skipped": faults}


def _as_it_is(loaded: Any) -> Any:
    return loaded

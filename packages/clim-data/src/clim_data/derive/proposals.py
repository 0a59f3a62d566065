"""Class-agnostic boxes for many images: from a folder or shards with a box finder, or from a
detector's results.

The output is a COCO json with one category "object" and a "score" for each box, best first in each
image. Long jobs are cut into parts (see `clim_data.processes.parts`): a killed one goes on, and the
ranks of a launcher share the images.
"""

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from clim_data.annotations.coco import read_annotations
from clim_data.derive.proposal_boxes import (
    CATEGORIES,
    BoxChoice,
    box_records,
    read_images,
    read_results,
)
from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.json_stream import compact, write_coco
from clim_data.files.names import is_image
from clim_data.matching.boxes import image_names, match_samples
from clim_data.pixels.decode import SUFFIX_OF_FORMAT, load_rgb, open_image
from clim_data.processes.parts import PartJob
from clim_data.sources.expand import Sources
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


class BoxFinder(Protocol):
    """Finds candidate boxes in RGB images, `batch_size` at a time, in worker processes if
    `in_processes`."""

    batch_size: int
    in_processes: bool

    def options(self) -> dict[str, Any]:
        """What decides the boxes, as plain json values."""

    def __call__(self, images: Sequence[Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each image boxes (N, 4) XYXY in pixels and scores (N,), larger is better."""


@dataclass
class ProposalReport:
    """The output, whether it is complete (only rank 0 completes it), how many images and boxes,
    what was left out."""

    output: Path
    complete: bool = True
    images: int = 0
    boxes: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)


@dataclass(frozen=True)
class ProposalWork:
    """Which images to search and how: all that a worker needs.

    `ids` and `names` are those of the output, by sample of `store`; an empty name is made from the
    sample's key.
    """

    store: SampleStore
    ids: Sequence[int]
    names: Sequence[str]
    finder: BoxFinder
    choice: BoxChoice
    on_error: str = "skip"

    def part(self, rows: range, threads: int = 1) -> dict:
        """Images, annotations without ids, and faults of the samples `rows`; `threads` decode
        ahead."""
        record: dict[str, list] = {"images": [], "annotations": [], "skipped": []}
        with ThreadPoolExecutor(threads) as pool:
            waiting: list[tuple[dict, Image.Image]] = []
            # Files are read by this thread: the store's open files are not shared between threads.
            for row, loaded in zip(rows, pool.map(self._decode, rows, map(self._read, rows))):
                if isinstance(loaded, BrokenSample):
                    if self.on_error == "raise":
                        raise loaded
                    record["skipped"].append([loaded.reason, loaded.name, loaded.detail])
                else:
                    waiting.append(loaded)
                if len(waiting) == self.finder.batch_size or (waiting and row == rows[-1]):
                    self._search(waiting, record)
                    waiting = []
        return record

    def _read(self, row: int) -> RawSample | BrokenSample:
        try:
            return self.store.read(row)
        except BrokenSample as fault:
            return fault

    def _decode(
        self, row: int, sample: RawSample | BrokenSample
    ) -> tuple[dict, Image.Image] | BrokenSample:
        if isinstance(sample, BrokenSample):
            return sample
        try:
            opened = open_image(sample.image, sample.name)
            suffix = SUFFIX_OF_FORMAT.get(opened.format or "", "jpg")
            image = load_rgb(opened, name=sample.name)
        except BrokenSample as fault:
            return fault
        name = self.names[row] or (sample.key if is_image(sample.key) else f"{sample.key}.{suffix}")
        return {
            "id": self.ids[row],
            "file_name": name,
            "height": image.height,
            "width": image.width,
        }, image

    def _search(self, loaded: list[tuple[dict, Image.Image]], record: dict[str, list]) -> None:
        found = self.finder([image for _, image in loaded])
        for (entry, image), (boxes, scores) in zip(loaded, found, strict=True):
            kept = self.choice(boxes, scores, (image.height, image.width))
            record["images"].append(entry)
            record["annotations"] += box_records(entry["id"], *kept)


def find_proposals(
    sources: Sources,
    output: str | Path,
    finder: BoxFinder,
    *,
    choice: BoxChoice | None = None,
    annotations: str | Path | None = None,
    workers: int = 1,
    part_images: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    patience: float = 1800.0,
    overwrite: bool = False,
    on_error: str = "skip",
) -> ProposalReport:
    """Search every image of `sources` for boxes and write them to `output`.

    Args:
        sources: a folder of images, or shards (see `clim_data.sources.expand.expand_sources`).
        finder: such as `SelectiveSearch()` or `RpnBoxes()`.
        choice: which candidates stay.
        annotations: a COCO json whose images alone are searched, and whose ids and file names are
            kept. Without it, images are numbered from 1 in the order of the sources, and named as
            in their folder, or KEY.SUFFIX.
        workers: processes, or threads that decode for a finder that stays in this process.
        part_images: images whose boxes are stored at once; what a killed job loses at most in each
            worker. By default a 64th of all, at most 64.
        rank, world_size, patience: see `PartJob`; rank 0 returns when the output is complete.
        overwrite: replace an output of other input or options.
        on_error: "skip" leaves out and names what cannot be read; "raise" stops at the first.

    Raises:
        ValueError, FileNotFoundError: an option is out of range, nothing can be read, or a rank is
            missing.
    """
    check_on_error(on_error)
    _check_at_least_1(workers=workers, part_images=part_images)
    store = SampleStore(sources, texts=False, on_error=on_error)
    ids, names = _identities(store, annotations)
    if not len(store):
        raise ValueError(f"{sources} holds no image ({store.skipped.summary(3)}): check the path")
    work = ProposalWork(store, ids, names, finder, choice or BoxChoice(), on_error)
    part_images = part_images or min(64, -(-len(store) // 64))
    job = PartJob(
        Path(output), _info(work), -(-len(store) // part_images), rank, world_size, patience
    )
    report = ProposalReport(job.output, complete=rank == 0, skipped=store.skipped)
    if job.finished(overwrite=overwrite):
        report.complete = True
        return report
    try:
        _do_share(job, work, part_images, workers, report)
    except BaseException as fault:
        job.failed(fault)
        raise
    if rank == 0:
        job.wait()
        _join(job, report)
    return report


def convert_results(
    results: str | Path,
    annotations: str | Path,
    output: str | Path,
    *,
    choice: BoxChoice | None = None,
) -> ProposalReport:
    """Write the boxes of a COCO results json as proposals for the images of `annotations`, whatever
    their classes.

    Raises:
        FileNotFoundError, ValueError: a file is missing or not as COCO has it, or no result fits an
            image.
    """
    report = ProposalReport(Path(output))
    images = read_images(annotations, report.skipped)
    choice = choice or BoxChoice()
    found = list(read_results(results, images, choice, report.skipped))
    report.images, report.boxes = len(images), sum(len(scores) for _, scores in found)
    if not report.boxes:
        raise ValueError(
            f"{results} has no box for {annotations} ({report.skipped.summary(3)}): give two that "
            "match"
        )
    info = {"method": "results", "results": Path(results).name, **choice.options()}
    records = (
        r
        for image, kept in zip(images, found, strict=True)
        for r in box_records(image["id"], *kept)
    )
    write_coco(output, {"info": info, **_entries(images, records, report.skipped)})
    return report


def _check_at_least_1(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def _identities(
    store: SampleStore, annotations: str | Path | None
) -> tuple[Sequence[int], Sequence[str]]:
    """Image id and file name of every sample; keeps the samples that `annotations` names."""
    if annotations is None:
        keys = [str(key) for index in store.indexes for key in index.keys.tolist()]
        if len(set(keys)) < len(keys):
            twice = Counter(keys).most_common(1)[0][0]
            raise ValueError(
                f"{twice} is there twice, boxes could not be told apart: give the sources one by "
                "one"
            )
        return range(1, len(keys) + 1), [""] * len(keys)
    images = read_annotations(annotations, "images")["images"]
    names, rows = image_names(images, store)
    matched = match_samples(names, store, annotations)
    store.keep(matched >= 0)
    kept = matched[matched >= 0].tolist()
    return [images[rows[m]]["id"] for m in kept], [names[m] for m in kept]


def _info(work: ProposalWork) -> dict[str, Any]:
    identity = compact([work.store.fingerprint(), list(work.ids), list(work.names)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {**work.finder.options(), **work.choice.options(), "images": digest}


def _do_share(
    job: PartJob, work: ProposalWork, part_images: int, workers: int, report: ProposalReport
) -> None:
    numbers = job.mine()
    rows = {n: range(n * part_images, min((n + 1) * part_images, len(work.store))) for n in numbers}
    total = sum(map(len, rows.values()))
    title = (
        "searching" if job.world_size == 1 else f"searching (rank {job.rank} of {job.world_size})"
    )
    with tqdm(total=total, desc=title, unit="image", disable=job.rank != 0) as bar:
        for record, number in _parts(work, rows, workers):
            job.write(number, record)
            report.images += len(record["images"])
            report.boxes += len(record["annotations"])
            report.skipped.extend(BrokenSample(*fault) for fault in record["skipped"])
            bar.update(len(rows[number]))


def _parts(work: ProposalWork, rows: dict[int, range], workers: int) -> Iterator[tuple[dict, int]]:
    """(record, number) of each part, in the order in which they are done."""
    if not work.finder.in_processes or min(workers, len(rows)) <= 1:
        for number, some in rows.items():
            yield work.part(some, threads=1 if work.finder.in_processes else workers), number
        return
    # A fork of this process would inherit the locks of the threads that torch and OpenCV may have
    # started in it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clim_data.derive.proposals", "torchvision.ops"])
    with ProcessPoolExecutor(min(workers, len(rows)), context, _take_work, (work,)) as pool:
        running = {pool.submit(_part_in_worker, some): number for number, some in rows.items()}
        try:
            for future in as_completed(running):
                yield future.result(), running.pop(future)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# What a worker process does its parts with; set once, when it starts.
_work: ProposalWork


def _take_work(work: ProposalWork) -> None:
    global _work
    _work = work


def _part_in_worker(rows: range) -> dict:
    return _work.part(rows)


def _join(job: PartJob, report: ProposalReport) -> None:
    """Join the parts of all ranks into the output, and count them in the report."""
    report.images = report.boxes = 0
    for part in job.read():
        report.images += len(part["images"])
        report.boxes += len(part["annotations"])
        report.skipped.extend(BrokenSample(*fault) for fault in part["skipped"])
    if not report.images:
        job.discard()
        raise ValueError(f"no image can be read: {report.skipped.summary(3)}; check the sources")
    images = (image for part in job.read() for image in part["images"])
    job.join(
        _entries(images, (a for part in job.read() for a in part["annotations"]), report.skipped)
    )


def _entries(
    images: Iterable[dict], annotations: Iterable[dict], skipped: SkipReport
) -> dict[str, Any]:
    faults = [{"reason": fault.reason, "name": fault.name} for fault in skipped.faults]
    numbered = ({"id": number, **record} for number, record in zip(count(1), annotations))
    return {"images": images, "annotations": numbered, "categories": CATEGORIES, "skipped": faults}

"""Class-agnostic boxes for many images: from a folder or shards with a box finder, or from a
detector's results.

The output is a COCO json with one category "object" and a "score" for each box, best first in each
image. Long jobs are cut into parts (see `clim_data.processes.parts`): a killed one goes on, and the
ranks of a launcher share the images.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clim_data.derive.proposal_boxes import (
    CATEGORIES,
    BoxChoice,
    box_records,
    read_result_images,
    read_results,
)
from clim_data.derive.proposal_work import BoxFinder, ProposalWork, search_parts
from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.json_stream import compact, stream_json, write_coco
from clim_data.matching.boxes import match_samples, read_images
from clim_data.processes.parts import PartJob
from clim_data.sources.expand import Sources
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.store import SampleStore


@dataclass
class ProposalReport:
    """The result of a search: the output, its images and boxes, and the skipped images.

    `complete` is true on rank 0, which writes the output. A report without images that is complete
    means that the output existed already. `repaired` is the number of images of an existing output
    that could not be read before and were searched now.
    """

    output: Path
    complete: bool = True
    images: int = 0
    boxes: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)
    repaired: int = 0


@dataclass(frozen=True)
class ProposalJob:
    """Options of the work on proposals, for every kind of search.

    Args:
        part_images: images whose boxes are stored at once; a killed job loses at most these in each
            worker. By default a 64th of all, at most 64.
        workers: processes, or threads that decode for a finder that stays in this process.
        rank: number of this process, from 0.
        world_size: how many processes share the images.
        patience: seconds without a new part after which rank 0 names the missing ranks.
        overwrite: replace an output of other input or options.
        on_error: "skip" counts and names what cannot be read; "raise" stops at the first.

    Raises:
        ValueError: an option is out of range.
    """

    part_images: int | None = None
    workers: int = 1
    rank: int = 0
    world_size: int = 1
    patience: float = 1800.0
    overwrite: bool = False
    on_error: str = "skip"

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1")
        if self.part_images is not None and self.part_images < 1:
            raise ValueError(f"part_images={self.part_images} must be at least 1")

    def cut(self, images: int) -> list[range]:
        """Cut the rows of `images` images into parts."""
        size = self.part_images or max(1, min(64, -(-images // 64)))
        return [range(start, min(start + size, images)) for start in range(0, images, size)]


def find_proposals(
    sources: Sources,
    output: str | Path,
    finder: BoxFinder,
    *,
    choice: BoxChoice | None = None,
    annotations: str | Path | None = None,
    job: ProposalJob | None = None,
) -> ProposalReport:
    """Search every image of `sources` for boxes and write them to `output`.

    Args:
        sources: a folder of images, or shards (see `clim_data.sources.expand.expand_sources`).
        finder: such as `SelectiveSearch()` or `RpnBoxes()`.
        choice: which candidates stay.
        annotations: a COCO json. Only its images are searched, and their ids and file names stay.
            Without it, images are numbered from 1 in the order of the sources, and named as in
            their folder, or KEY.SUFFIX.
        job: how the work is done. Rank 0 returns when the output is complete.

    Raises:
        ValueError, FileNotFoundError: an option is out of range, nothing can be read, or a rank is
            missing.
        BrokenProcessPool: a worker process was killed.
    """
    job = job or ProposalJob()
    store = SampleStore(sources, texts=False, on_error=job.on_error)
    ids, names = _identities(store, annotations)
    if not len(store):
        raise ValueError(f"{sources} holds no image ({store.skipped.summary(3)}): check the path")

    work = ProposalWork(store, ids, names, finder, choice or BoxChoice(), job.on_error)
    rows = job.cut(len(store))
    parts = PartJob(Path(output), _info(work), len(rows), job.rank, job.world_size, job.patience)
    report = ProposalReport(parts.output, complete=job.rank == 0, skipped=store.skipped)
    if parts.finished(overwrite=job.overwrite):
        report.complete = True
        if job.rank == 0:
            _search_repaired(parts, work, report)
        return report

    try:
        _do_share(parts, work, rows, job.workers, report)
    except BaseException as fault:
        parts.report_failure(fault)
        raise

    if job.rank == 0:
        parts.wait()
        _join(parts, report)
    return report


def convert_results(
    results: str | Path,
    annotations: str | Path,
    output: str | Path,
    *,
    choice: BoxChoice | None = None,
) -> ProposalReport:
    """Write the boxes of a COCO results json as proposals for the images of `annotations`.

    Classes do not matter.

    Raises:
        FileNotFoundError, ValueError: a file is missing or not as COCO has it, or no result fits an
            image.
    """
    report = ProposalReport(Path(output))
    images = read_result_images(annotations, report.skipped)
    choice = choice or BoxChoice()
    found = list(read_results(results, images, choice, report.skipped))
    report.images, report.boxes = len(images), sum(len(scores) for _, scores in found)
    if not report.boxes:
        raise ValueError(
            f"{results} has no box for {annotations} ({report.skipped.summary(3)}): give two that "
            "match"
        )
    info = {"method": "results", "results": Path(results).name, **choice.options()}
    records = _records_of(images, found)
    write_coco(output, {"info": info, **_entries(images, records, report.skipped)})
    return report


def _records_of(images: list[dict], found: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[dict]:
    for image, (boxes, scores) in zip(images, found, strict=True):
        yield from box_records(image["id"], boxes, scores)


def _identities(
    store: SampleStore, annotations: str | Path | None
) -> tuple[Sequence[int], Sequence[str]]:
    """Return image id and file name of every sample; keep only samples that `annotations` names."""
    if annotations is None:
        samples = names_of_samples(store).samples
        shown = [sample.shown for sample in samples]
        if len(set(shown)) < len(shown):
            twice = Counter(shown).most_common(1)[0][0]
            raise ValueError(
                f"{twice} is there twice, boxes could not be told apart: give the sources one by "
                "one"
            )
        # The key of a file is its name; a sample of a shard may have a name of its own.
        names = ["" if sample.folder else sample.whole for sample in samples]
        return range(1, len(names) + 1), names
    images = read_images(annotations, store)
    matched = match_samples([image.name for image in images], store, annotations)
    store.keep(matched >= 0)
    chosen = [images[row] for row in matched[matched >= 0].tolist()]
    return [image.id for image in chosen], [image.name for image in chosen]


def _info(work: ProposalWork) -> dict[str, Any]:
    identity = compact([work.store.fingerprint(), list(work.ids), list(work.names)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {**work.finder.options(), **work.choice.options(), "images": digest}


def _do_share(
    parts: PartJob,
    work: ProposalWork,
    rows: Sequence[range],
    workers: int,
    report: ProposalReport,
) -> None:
    """Search the missing parts of this rank."""
    mine = {number: rows[number] for number in parts.remaining_parts()}
    title = "searching"
    if parts.world_size > 1:
        title += f" (rank {parts.rank} of {parts.world_size})"

    total = sum(map(len, mine.values()))
    with tqdm(total=total, desc=title, unit="image", disable=parts.rank != 0) as bar:
        for number, record in search_parts(work, mine, workers):
            parts.write(number, record)
            _count(record, report)
            bar.update(len(mine[number]))


def _count(record: dict, report: ProposalReport) -> None:
    report.images += len(record["images"])
    report.boxes += len(record["annotations"])
    report.skipped.extend(BrokenSample(*fault) for fault in record["skipped"])


def _join(parts: PartJob, report: ProposalReport) -> None:
    """Join the parts of all ranks into the output, and count them in the report."""
    report.images = report.boxes = 0
    for record in parts.read():
        _count(record, report)
    if not report.images:
        parts.discard()
        raise ValueError(f"no image can be read: {report.skipped.summary(3)}; check the sources")

    images = _of_all(parts, "images")
    annotations = _of_all(parts, "annotations")
    parts.join(_entries(images, annotations, report.skipped))


def _search_repaired(parts: PartJob, work: ProposalWork, report: ProposalReport) -> None:
    """Search images that could not be read when the output was written, and now can be.

    The rest of the output stays.
    """
    unread = _skipped_names(parts.output)
    rows = [row for row, name in enumerate(work.store.titles()) if name in unread]
    found = work.part(rows)
    report.repaired = len(found["images"])
    if not report.repaired:
        return

    report.skipped.extend(BrokenSample(*fault) for fault in found["skipped"])
    images = list(chain(_stream_list(parts.output, "images"), found["images"]))
    report.images = len(images)
    old_boxes = _stream_list(parts.output, "annotations")
    boxes = _count_boxes(chain(old_boxes, found["annotations"]), report)
    parts.join(_entries(images, boxes, report.skipped))


def _skipped_names(output: Path) -> set[str]:
    """Return the names of the skipped images of an output."""
    names = set()
    for name, entry in stream_json(output):
        if name == "skipped":
            names.add(entry["name"])
        elif name == "images":  # the list comes before the long ones
            break
    return names


def _stream_list(output: Path, name: str) -> Iterator[dict]:
    """Yield the items of a list of an output."""
    return (entry for found, entry in stream_json(output) if found == name)


def _count_boxes(boxes: Iterable[dict], report: ProposalReport) -> Iterator[dict]:
    """Count boxes in the report as they pass."""
    for box in boxes:
        report.boxes += 1
        yield box


def _of_all(parts: PartJob, name: str) -> Iterator[dict]:
    for record in parts.read():
        yield from record[name]


def _entries(
    images: Iterable[dict], annotations: Iterable[dict], skipped: SkipReport
) -> dict[str, Any]:
    faults = [{"reason": fault.reason, "name": fault.name} for fault in skipped.faults]
    numbered = ({**record, "id": number} for number, record in zip(count(1), annotations))
    # Skipped images come before the long lists, so that a later search reads only the beginning.
    return {"skipped": faults, "images": images, "annotations": numbered, "categories": CATEGORIES}

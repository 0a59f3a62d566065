"""The search itself: images of a source through a box finder, in this process or in workers."""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from clim_data.derive.proposal_boxes import BoxChoice, box_records
from clim_data.faults import BrokenSample
from clim_data.files.names import is_image
from clim_data.pixels.decode import SUFFIX_OF_FORMAT, load_rgb, open_image
from clim_data.processes.worker_signals import end_with_starter, workers_ended_on_error
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


class BoxFinder(Protocol):
    """A finder of candidate boxes in RGB images.

    It gets `batch_size` images at a time, in worker processes if `in_processes`.
    """

    batch_size: int
    in_processes: bool

    def options(self) -> dict[str, Any]:
        """Return the options that decide the boxes, as plain json values."""

    def __call__(self, images: Sequence[Image.Image]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each image boxes (N, 4) XYXY in pixels and scores (N,), larger is better."""


@dataclass(frozen=True)
class ProposalWork:
    """The images to search and the options of the search: everything that a worker needs.

    `ids` and `names` stand in the output, one for each sample of `store`. An empty name is made
    from the sample's key.
    """

    store: SampleStore
    ids: Sequence[int]
    names: Sequence[str]
    finder: BoxFinder
    choice: BoxChoice
    on_error: str = "skip"

    def part(self, rows: Sequence[int], threads: int = 1) -> dict:
        """Search the samples `rows`, while `threads` decode the next ones.

        Returns images, annotations without ids, and faults as (reason, name, detail).
        """
        record: dict[str, list] = {"images": [], "annotations": [], "skipped": []}
        with ThreadPoolExecutor(threads) as pool:
            waiting: list[tuple[dict, Image.Image]] = []
            # Files are read by this thread: the store's open files are not shared between threads.
            decoded = pool.map(self._decode, rows, map(self._read, rows))
            for row, loaded in zip(rows, decoded, strict=True):
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
        entry = {
            "id": self.ids[row],
            "file_name": name,
            "height": image.height,
            "width": image.width,
        }
        return entry, image

    def _search(self, loaded: list[tuple[dict, Image.Image]], record: dict[str, list]) -> None:
        found = self.finder([image for _, image in loaded])
        for (entry, image), (boxes, scores) in zip(loaded, found, strict=True):
            kept = self.choice(boxes, scores, (image.height, image.width))
            record["images"].append(entry)
            record["annotations"] += box_records(entry["id"], *kept)


def search_parts(
    work: ProposalWork, parts: Mapping[int, range], workers: int
) -> Iterator[tuple[int, dict]]:
    """Yield number and record of each part, in the order in which they are done.

    Args:
        parts: rows of the store, by number of the part.
        workers: processes, or threads that decode for a finder that stays in this process.

    Raises:
        BrokenProcessPool: a worker process was killed, for example for its memory.
    """
    workers = min(workers, len(parts)) if work.finder.in_processes else workers
    if work.finder.in_processes and workers > 1:
        yield from _search_in_processes(work, parts, workers)
        return

    threads = 1 if work.finder.in_processes else workers
    for number, rows in parts.items():
        yield number, work.part(rows, threads=threads)


def _search_in_processes(
    work: ProposalWork, parts: Mapping[int, range], workers: int
) -> Iterator[tuple[int, dict]]:
    # A fork of this process would inherit the locks of the threads that torch and OpenCV may have
    # started in it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torchvision.ops"])
    with (
        ProcessPoolExecutor(workers, context, _start_worker, (work,)) as pool,
        workers_ended_on_error(pool),
    ):
        running = {pool.submit(_part_in_worker, rows): number for number, rows in parts.items()}
        for future in as_completed(running):
            yield running.pop(future), future.result()


# The work of a worker process; set once, when it starts.
_work: ProposalWork


def _start_worker(work: ProposalWork) -> None:
    global _work
    _work = work
    # Ctrl-C reaches the whole group of processes; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_starter()


def _part_in_worker(rows: range) -> dict:
    return _work.part(rows)

"""A job that writes COCO results, in parts that processes share and that can be resumed.

It writes two files: the results, a list that other tools read, and next to them NAME.about.json,
which lists their inputs and the images that could not be used.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from clim_data import BrokenSample, SampleWarning
from clim_data.files import stream_json, write_whole
from clim_data.processes import PartJob, do_parts
from tqdm import tqdm

from clim_eval.reports.provenance import hash_file


@dataclass
class PartRecord:
    """The results of some images.

    results: COCO results, or the records from which `join` makes them. faults: (place of the image,
    fault or warning).
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[int, BrokenSample]] = field(default_factory=list)


Work = Callable[[Sequence[int], tqdm], PartRecord]
Join = Callable[[Iterator[dict[str, Any]]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Written:
    """The results of a finished job.

    path: the file of COCO results. unread: places of images that could not be used. faults: their
    faults, and warnings about others.
    """

    path: Path
    unread: frozenset[int] = frozenset()
    faults: tuple[BrokenSample, ...] = ()


@dataclass(frozen=True)
class ResultsJob:
    """A job over a number of images that writes COCO results.

    Args:
        results: the file to write.
        info: plain values that decide its content, equal on all ranks.
        images: how many there are.
        part_images: of a part; a killed run loses one part.
        ranks: rank and number of processes.
        patience: seconds that rank 0 waits without news of the others.
        overwrite: replace results of other input or options.
    """

    results: Path
    info: Mapping[str, Any]
    images: int
    part_images: int = 128
    ranks: tuple[int, int] = (0, 1)
    patience: float = 1800.0
    overwrite: bool = False

    def run(self, work: Work, join: Join | None = None) -> Written | None:
        """Do the missing parts of this rank; on rank 0 wait for the others and join all.

        A finished job tries again the images that could not be read.

        Args:
            work: of the places of some images, and a bar that it moves.
            join: makes COCO results of the records of all parts; None takes them as they are.

        Returns:
            The written results, also of an earlier run; None on the other ranks.

        Raises:
            ValueError: there are results of another job, or results that were changed since.
        """
        parts = self._parts()
        if self._is_done(parts):
            if not self.overwrite:
                return self._repair(parts, work, join) if parts.rank == 0 else None
            parts.output.unlink(missing_ok=True)

        def part_of(places: Sequence[int], bar: tqdm) -> dict[str, Any]:
            return _as_json(work(places, bar))

        joins = do_parts(parts, part_of, images=self.images, part_images=self.part_images)
        if not joins:
            return None
        self._join(parts, join)
        return self._read()

    @property
    def _about(self) -> Path:
        return self.results.with_name(f"{self.results.stem}.about.json")

    def _parts(self) -> PartJob:
        rank, world_size = self.ranks
        return PartJob(
            self._about,
            dict(self.info),
            parts=-(-self.images // self.part_images),
            rank=rank,
            world_size=world_size,
            patience=self.patience,
        )

    def _is_done(self, parts: PartJob) -> bool:
        if not self.results.exists():
            # NAME.about.json is useless without the results.
            return False
        if not self._about.exists() and not self.overwrite and not parts.folder.exists():
            raise ValueError(
                f"{self.results} is there already and is not of this command: use --overwrite, or "
                "another --out"
            )
        return parts.finished(overwrite=self.overwrite)

    def _join(self, parts: PartJob, join: Join | None) -> None:
        faults: list[Sequence[Any]] = []

        def results() -> Iterator[dict[str, Any]]:
            for part in parts.read():
                faults.extend(part["faults"])
                yield from part["results"]

        digest = write_results(self.results, results() if join is None else join(results()))
        parts.join({"sha256": digest, "faults": faults})

    def _repair(self, parts: PartJob, work: Work, join: Join | None) -> Written:
        """Add the results of images that could not be read in the earlier run and now can be."""
        written = self._read()
        if not written.unread:
            return written
        with tqdm(disable=True) as bar:
            part = work(sorted(written.unread), bar)
        still = {place for place, fault in part.faults if not isinstance(fault, SampleWarning)}
        repaired = written.unread - still
        if not repaired:
            return written

        new = iter(part.results)
        old = json.loads(self._about.read_bytes())["faults"]
        faults = [one for one in old if one[0] not in repaired]
        faults += [one for one in _as_json(part)["faults"] if one[0] in repaired]
        records = chain(read_results(self.results), new if join is None else join(new))
        digest = write_results(self.results, records)
        parts.join({"sha256": digest, "faults": faults})
        print(f"{len(repaired)} images that could not be read before can be read now")
        return self._read()

    def _read(self) -> Written:
        about = json.loads(self._about.read_bytes())
        if hash_file(self.results) != about["sha256"]:
            raise ValueError(
                f"{self.results} was changed after it was made: use another --out, or --overwrite "
                "to make it again"
            )
        faults, unread = [], []
        for place, is_odd, *texts in about["faults"]:
            faults.append((SampleWarning if is_odd else BrokenSample)(*texts))
            if not is_odd:
                unread.append(place)
        return Written(self.results, frozenset(unread), tuple(faults))


def write_results(path: Path, results: Iterable[Mapping[str, Any]]) -> str:
    """Write COCO results, one at a time, to a file that is either whole or absent; return its
    SHA-256."""
    digest = hashlib.sha256()
    with write_whole(path) as draft, open(draft, "wb") as out:

        def write(text: str) -> None:
            line = text.encode()
            digest.update(line)
            out.write(line)

        write("[")
        for number, one in enumerate(results):
            write((",\n" if number else "") + json.dumps(one, ensure_ascii=False))
        write("]\n")
    return digest.hexdigest()


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the detections of a file of COCO results, one at a time.

    The file is a list, or an object with the list under "annotations", as `clim-eval detect`
    writes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json, or something else.
    """
    names: set[str] = set()
    for name, item in stream_json(path):
        names.add(name)
        if name in ("", "annotations"):
            if not isinstance(item, dict):
                raise ValueError(
                    f"{path} holds {str(item)[:60]!r} where a detection should be: pass COCO "
                    "results, a list of objects with image_id, category_id, bbox and score"
                )
            yield item
    if names and not names & {"", "annotations"}:
        raise ValueError(
            f"{path} has {', '.join(sorted(names))}, and no results: pass COCO results, a list of "
            "objects with image_id, category_id, bbox and score"
        )


def _as_json(part: PartRecord) -> dict[str, Any]:
    faults: list[Sequence[Any]] = [
        (place, isinstance(one, SampleWarning), one.reason, one.name, one.detail)
        for place, one in part.faults
    ]
    return {"results": part.results, "faults": faults}

"""Long jobs over many images, cut into parts that workers and ranks share, and that can be resumed.

Every finished part is a file of its own, written whole or not at all, in a folder next to the
output. Ranks share nothing but that folder: rank r does the parts r, r + world_size, ..., and rank
0 waits for the others and joins all parts. The folder's name has a digest of the job's options, so
parts of different jobs never mix.
"""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data.files.atomic import write_json
from clim_data.files.json_stream import compact, write_coco


@dataclass(frozen=True)
class PartJob:
    """One job that writes `output`, a json file, out of `parts` parts.

    Args:
        info: plain values that identify the job (inputs, options, version), equal on all ranks.
            They become the first entry of the output: an output that starts with the same `info`
            is the finished job.
        rank, world_size: of this process; they decide which parts it does.
        patience: seconds without a new part after which rank 0 names the ranks that are missing.

    Raises:
        ValueError: the rank or the patience is out of range.
    """

    output: Path
    info: dict[str, Any]
    parts: int
    rank: int = 0
    world_size: int = 1
    patience: float = 1800.0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank={self.rank} must be within 0..world_size-1 = {self.world_size - 1}"
            )
        if self.patience <= 0:
            raise ValueError(f"patience={self.patience} must be a number of seconds above 0")

    @property
    def folder(self) -> Path:
        digest = hashlib.sha256(f"{self.parts}|{compact(self.info)}".encode()).hexdigest()[:12]
        return self.output.with_name(f"{self.output.name}.parts-{digest}")

    def finished(self, *, overwrite: bool = False) -> bool:
        """Return whether the output exists already.

        Raises:
            ValueError: there is an output of another job, and `overwrite` does not allow to replace
                it; or a folder.
        """
        if self.output.is_dir():
            raise ValueError(f"{self.output} is a folder: name a file for the output")
        head = f'{{"info":{compact(self.info)},'.encode()
        try:
            with open(self.output, "rb") as stream:
                if stream.read(len(head)) == head:
                    return True
        except FileNotFoundError:
            return False
        if not overwrite:
            raise ValueError(
                f"{self.output} was made from other input or options: use --overwrite, or another "
                "--out"
            )
        return False

    def remaining_parts(self) -> list[int]:
        """Return the numbers of this rank's parts that are not done; call it once, at the start.

        Clears the note of an earlier failure of this rank; rank 0 clears all, since it may start
        before the others.
        """
        for rank in range(self.world_size) if self.rank == 0 else (self.rank,):
            self._failure_note(rank).unlink(missing_ok=True)

        # A folder without write access is noticed before the work.
        self.folder.mkdir(parents=True, exist_ok=True)
        return [
            n for n in range(self.rank, self.parts, self.world_size) if not self._path(n).exists()
        ]

    def mine(self) -> list[int]:
        """Call `remaining_parts`; the former name, for one release."""
        _warn_of_old_name("mine", "remaining_parts")
        return self.remaining_parts()

    def write(self, number: int, record: dict) -> None:
        """Store a finished part."""
        write_json(self._path(number), record)

    def report_failure(self, fault: BaseException) -> None:
        """Tell rank 0, if this is another one, not to wait for this rank."""
        if self.world_size == 1:
            return
        write_json(self._failure_note(self.rank), {"fault": f"{type(fault).__name__}: {fault}"})

    def failed(self, fault: BaseException) -> None:
        """Call `report_failure`; the former name, for one release."""
        _warn_of_old_name("failed", "report_failure")
        self.report_failure(fault)

    def wait(self, *, poll: float = 1.0) -> None:
        """Wait for the parts of all ranks.

        Raises:
            ValueError: a rank noted a failure, or no part appeared for `patience` seconds; names
                the missing ranks.
        """
        before, since = -1, time.monotonic()
        while missing := self.missing():
            ranks = sorted({n % self.world_size for n in missing})
            for rank in ranks:
                if self._failure_note(rank).exists():
                    fault = json.loads(self._failure_note(rank).read_bytes())["fault"]
                    raise ValueError(
                        f"rank {rank} stopped ({fault}); {self._how_to_go_on(missing)}"
                    )
            if len(missing) != before:
                before, since = len(missing), time.monotonic()
            elif time.monotonic() - since > self.patience:
                raise ValueError(
                    f"nothing came from rank {', '.join(map(str, ranks))} for {self.patience:g} s; "
                    f"{self._how_to_go_on(missing)}"
                )
            time.sleep(poll)

    def missing(self) -> list[int]:
        """Return the numbers of the missing parts of all ranks."""
        there = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        return [n for n in range(self.parts) if self._path(n).name not in there]

    def read(self) -> Iterator[dict]:
        """Yield all parts in order, one at a time."""
        for number in range(self.parts):
            yield json.loads(self._path(number).read_bytes())

    def join(self, entries: dict[str, Any]) -> None:
        """Write `info` and `entries` to the output (see `write_coco`), and remove the parts."""
        write_coco(self.output, {"info": self.info, **entries})
        self.discard()

    def discard(self) -> None:
        """Remove the parts of all ranks."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _how_to_go_on(self, missing: list[int]) -> str:
        done = f"{self.parts - len(missing)} of {self.parts} parts are stored in {self.folder}"
        return f"{done}: run the same command again to do the rest, on any number of ranks"

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.json"

    def _failure_note(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.failed.json"


def _warn_of_old_name(old: str, new: str) -> None:
    message = f"PartJob.{old} is now {new}: use that name"
    warnings.warn(message, DeprecationWarning, stacklevel=3)

"""Overlaps of predicted masks with true ones, as counts of each sample on the disk, for several
processes at once.

Letters: N masks, h w size of the logits, H W size of the true masks.
"""

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data.files import write_text
from clim_data.processes import gather_objects

from clim_eval.metrics.masks import MaskOverlaps
from clim_eval.reports.tables import to_jsonable


class MaskScores:
    """Overlap counts of every sample so far; with a folder they survive the process.

    Each rank appends to its own `scores-RANK.jsonl`, one line per sample. A run that starts again
    in the folder, on any number of ranks, finds what was done by `key in scores`. `gather()` joins
    all of them when a rank has finished.

    Args:
        folder: for the lines; None keeps them in memory only.
        rank: of this process.
        config: everything that the scores depend on (model, checkpoint, data, protocol), a
            dataclass or json value; it is written to `config.json` and must be the same when a
            folder is used again.

    Raises:
        ValueError: the folder holds scores of another config, or a damaged line that is not its
            file's last.
    """

    def __init__(
        self, folder: str | os.PathLike | None = None, *, rank: int = 0, config: Any = None
    ):
        self.rows: dict[str, dict[str, Any]] = {}
        self._folder = None if folder is None else Path(folder)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _claim(self._folder, json.loads(json.dumps(to_jsonable(config))))
        self._own = self._folder / f"scores-{rank:04d}.jsonl"
        _drop_torn_line(self._own)
        self.rows = _read_rows(self._folder)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        """Count the samples that this process knows."""
        return len(self.rows)

    def add(
        self, key: str, overlaps: MaskOverlaps, **flags: Sequence[bool] | Sequence[float]
    ) -> None:
        """Add the counts of one sample, and N values for each name in `flags`. The counts move to
        the CPU once. Numbers with a fraction are scores, all other values flags.

        Raises:
            ValueError: flags of another length.
        """
        intersections, unions = torch.stack([overlaps.intersections, overlaps.unions]).tolist()
        row = {
            "key": key,
            "intersections": intersections,
            "unions": unions,
            "pixels": overlaps.pixels,
        }
        for name, values in flags.items():
            if len(values) != len(unions):
                raise ValueError(
                    f"{name} has {len(values)} values for {len(unions)} masks: pass one for each"
                )
            row[name] = _plain(values)
        if self._folder is not None:
            with open(self._own, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        self.rows[key] = row

    def gather(self) -> "MaskScores":
        """Add the samples of all ranks of the process group and return this object. Collective."""
        for rows in gather_objects(self.rows):
            self.rows |= rows
        return self

    def column(self, name: str) -> np.ndarray:
        """Return one value for each mask of all samples, in the order of their keys:
        "intersections", "unions", a flag, or scores.

        Raises:
            ValueError: a sample has no such value.
        """
        rows = [self.rows[key] for key in sorted(self.rows)]
        missing = next((row["key"] for row in rows if name not in row), None)
        if missing is not None:
            raise ValueError(f"sample {missing!r} has no {name!r}: pass it to add()")
        values = list(itertools.chain.from_iterable(row[name] for row in rows))
        if name in ("intersections", "unions"):
            return np.array(values, dtype=np.int64)
        has_scores = any(isinstance(value, float) for value in values)
        return np.array(values, dtype=np.float64 if has_scores else bool)

    def pixels(self) -> np.ndarray:
        """Return the pixels of each mask, int64, in the order of `column`."""
        rows = [self.rows[key] for key in sorted(self.rows)]
        return np.repeat(
            [row["pixels"] for row in rows], [len(row["unions"]) for row in rows]
        ).astype(np.int64)


def _plain(values: Sequence[bool] | Sequence[float]) -> list[bool] | list[float]:
    """Return values as JSON holds them; numbers of numpy and torch are of many types."""
    array = np.asarray(values)
    return (array.astype(np.float64) if array.dtype.kind == "f" else array.astype(bool)).tolist()


def _read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of all ranks."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("scores-*.jsonl")):
        # An unfinished last line is still being written.
        lines = path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                row = _checked_row(json.loads(line))
                rows[row["key"]] = row
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(
                    f"{path} line {number} is damaged: remove that line to score it again"
                ) from None
    return rows


def _checked_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `MaskScores.add` writes it; ValueError, KeyError or TypeError for another."""
    counts = [*row["intersections"], *row["unions"], row["pixels"]]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count is no number of pixels")
    lengths = {len(value) for value in row.values() if isinstance(value, list)}
    if lengths != {len(row["unions"])} or not isinstance(row["key"], str):
        raise ValueError("its lists are not of one length, or its key is no text")
    return row


def _claim(folder: Path, config: Any) -> None:
    """Write the config of a folder, or check that the folder has the same one."""
    path = folder / "config.json"
    if not path.is_file():
        write_text(path, json.dumps(config, indent=2))
        return
    try:
        known = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}), so that nothing says what these scores are of: use "
            "another folder"
        ) from error
    if known != config:
        raise ValueError(f"{folder} holds scores of another configuration: use another folder")


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed run left without its end."""
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
        with open(path, "r+b") as out:
            out.truncate(data.rfind(b"\n") + 1)

"""Output of experiments: stages with their time, and aligned tables."""

import os
import time
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path


class Stages:
    """Prints numbered stages with the time since the start."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()

    def begin(self, what: str) -> None:
        self.done += 1
        print(
            f"[{self.done}/{self.total}] {time.monotonic() - self.start:4.0f} s  {what}", flush=True
        )


def cpu_minutes() -> float:
    """Return the minutes of CPU time of this process and of its finished children."""
    spent = os.times()
    seconds = spent.user + spent.system + spent.children_user + spent.children_system
    return seconds / 60


def free_folder(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... that does not exist yet."""
    candidates = chain([path], (path.with_name(f"{path.name}-{i}") for i in count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is also readable as text.

    The first row is the head. The first column stands to the left, the others to the right.
    """
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width[0], *["-" * (w - 1) + ":" for w in width[1:]]]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        padded = [
            row[0].ljust(width[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], width[1:], strict=True)),
        ]
        lines.append("| " + " | ".join(padded) + " |")
    return "\n".join(lines)

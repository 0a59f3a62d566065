"""Tables of metrics in Markdown, and how a number is shown."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

# Metrics that are fractions in [0, 1] and are shown in percent.
FRACTION = re.compile(
    r"(^|\.)(mAcc\d+|top\d+|R@\d+|AR(_\w+)?|acc@[\d.]+|[cmo]IoU|Pr@[\d.]+|pixel_accuracy)$"
)


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Markdown table: flat metrics as READOUT.REST are laid out as rows x columns, arms as columns
    side by side."""
    if not metrics:
        return "No metrics."
    if all(isinstance(value, Mapping) for value in metrics.values()):
        names = list(dict.fromkeys(name for values in metrics.values() for name in values))
        rows = [
            [name, *(show_number(name, values.get(name)) for values in metrics.values())]
            for name in names
        ]
        return markdown(["metric", *metrics], rows)
    heads = list(dict.fromkeys(name.partition(".")[0] for name in metrics))
    tails = list(dict.fromkeys(name.partition(".")[2] for name in metrics))
    if "" in tails or len(heads) < 2 or len(heads) * len(tails) > 2 * len(metrics):
        return markdown(
            ["metric", "value"],
            [[name, show_number(name, value)] for name, value in metrics.items()],
        )
    cells = [
        [head, *(show_number(f"{head}.{tail}", metrics.get(f"{head}.{tail}")) for tail in tails)]
        for head in heads
    ]
    return markdown(["", *tails], cells)


def show_number(name: str, value: float | None) -> str:
    """A metric for people: fractions (`FRACTION`) in percent with two digits, other numbers with
    four figures."""
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.2f} %" if FRACTION.search(name) else f"{value:.4g}"


def to_jsonable(value: Any) -> Any:
    """The value as JSON holds it: dataclasses as dicts, paths, dtypes and devices as text, nan as
    None.

    Raises ValueError for anything whose meaning would be lost.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_jsonable(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [
            to_jsonable(item)
            for item in (sorted(value) if isinstance(value, set | frozenset) else value)
        ]
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return to_jsonable(value.item())
    if isinstance(value, os.PathLike | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"a report cannot hold {value!r} of type {type(value).__name__}: pass numbers, text, "
        "lists, dicts"
    )


def leaves(tree: Any, prefix: str = "") -> list[list[str]]:
    if isinstance(tree, Mapping):
        return [
            row
            for key, item in tree.items()
            for row in leaves(item, f"{prefix}.{key}" if prefix else key)
        ]
    return [[prefix, "" if tree is None else str(tree)]]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(head))]
    # Names and texts to the left, numbers to the right, readable also as plain text.
    right = [bool(i) and not text for i in range(len(head))]
    lines = [
        "| "
        + " | ".join(c.rjust(w) if r else c.ljust(w) for r, c, w in zip(right, row, widths))
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for r, w in zip(right, widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])

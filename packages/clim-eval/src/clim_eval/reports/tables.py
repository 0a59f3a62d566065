"""Tables of metrics in Markdown, and the format of numbers."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

# Metrics that are fractions in [0, 1] and are shown in percent.
FRACTION = re.compile(
    r"(^|\.)(mAcc\d+|top\d+|R@\d+|AR(_\w+)?|acc@[\d.]+|([cmo]|box_m)IoU|Pr@[\d.]+|pixel_accuracy"
    r"|box_acc@[\d.]+|answer_\w+|sign|AP(\d\d|[smlrcf])?(_\w+)?)$"
)

# Columns of a table of metrics; more of them are shown as a list.
WIDEST = 12


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Return a Markdown table: flat metrics as READOUT.REST are laid out as rows x columns, arms as
    columns side by side."""
    if not metrics:
        return "No metrics."

    rows: list[list[str]] = []
    if all(isinstance(value, Mapping) for value in metrics.values()):
        for name in dict.fromkeys(chain.from_iterable(metrics.values())):
            cells = [show_number(name, values.get(name)) for values in metrics.values()]
            rows.append([name, *cells])
        return markdown(["metric", *metrics], rows)

    heads = list(dict.fromkeys(name.partition(".")[0] for name in metrics))
    tails = list(dict.fromkeys(name.partition(".")[2] for name in metrics))
    is_sparse = len(heads) * len(tails) > 2 * len(metrics)
    if "" in tails or len(heads) < 2 or is_sparse or len(tails) > WIDEST:
        rows = [[name, show_number(name, value)] for name, value in metrics.items()]
        return markdown(["metric", "value"], rows)

    for head in heads:
        names = [f"{head}.{tail}" for tail in tails]
        rows.append([head, *(show_number(name, metrics.get(name)) for name in names)])
    return markdown(["", *tails], rows)


def show_number(name: str, value: float | None) -> str:
    """Return a metric as text: fractions (`FRACTION`) in percent with two digits, other numbers
    with four figures."""
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.2f} %" if FRACTION.search(name) else f"{value:.4g}"


def to_jsonable(value: Any) -> Any:
    """Return the value as JSON holds it: dataclasses as dicts, paths, dtypes and devices as text,
    nan as None.

    Raises ValueError for anything whose meaning would be lost.
    """
    # Imported here: torch takes a second, which tables of names need not wait for.
    import torch

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
    """Return [dotted name, value as text] of every value in nested dicts."""
    if not isinstance(tree, Mapping):
        return [[prefix, "" if tree is None else str(tree)]]

    rows = []
    for key, item in tree.items():
        rows += leaves(item, f"{prefix}.{key}" if prefix else key)
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    """Return a Markdown table that is also readable as plain text.

    Args:
        text: all columns are texts, and not numbers after the first one.
    """
    table = [_escape(row) for row in [head, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    # Names and texts to the left, numbers to the right.
    right = [bool(i) and not text for i in range(len(head))]

    rule = ["-" * (w + 1) + (":" if r else "-") for r, w in zip(right, widths, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for is_right, cell, width in zip(right, row, widths, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _escape(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in row]

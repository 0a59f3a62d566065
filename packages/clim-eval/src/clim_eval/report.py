"""One report format: report.json for programs, report.md and figures for people."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clim_eval.provenance import package_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Metrics that are fractions in [0, 1] and are shown in percent.
FRACTION = re.compile(r"(^|\.)(mAcc\d+|top\d+|R@\d+|AR(_\w+)?|acc@[\d.]+|[cmo]IoU|Pr@[\d.]+|pixel_accuracy)$")


def write_report(
    folder: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, Any],
    config: Any,
    figures: Mapping[str, Figure | str | os.PathLike] | None = None,
    data: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict:
    """Write report.json, report.md and figures/NAME.png into ``folder``.

    Every file appears whole or not at all, and report.json, which programs look for, comes last. Other files of the
    folder stay.

    Args:
        folder: created when missing.
        title: first line of the page.
        metrics: {name: number}, or {arm: {name: number}} to compare arms; None and nan are shown as "-".
        config: a dataclass or dict of how the numbers were made (model, data, options).
        figures: {name: matplotlib Figure, or the path of a PNG to copy}.
        data: `data_fingerprint` of what was evaluated.
        notes: paragraphs under the tables.

    Returns the content of report.json: title, created, metrics, config, data, versions, figures, notes. Raises
    ValueError for metrics that are not numbers and config values that JSON cannot hold.
    """
    folder = Path(folder)
    metrics = {name: _checked_metric(name, value) for name, value in metrics.items()}
    nested = [isinstance(value, dict) for value in metrics.values()]
    if any(nested) and not all(nested):
        raise ValueError("metrics mixes numbers and arms: pass {name: number} or {arm: {name: number}}")
    figures = dict(figures or {})
    report = {
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": metrics,
        "config": plain(config),
        "data": plain(data) if data is not None else None,
        "versions": package_versions(),
        "figures": {name: f"figures/{_file_name(name)}.png" for name in figures},
        "notes": list(notes),
    }
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False)
    page = report_page(report)
    (folder / "figures" if figures else folder).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_png(folder / report["figures"][name], figure)
    _write(folder / "report.md", page.encode())
    _write(folder / "report.json", text.encode())
    return report


def read_report(path: str | os.PathLike) -> dict:
    """The content of a report.json, given itself or its folder.

    Raises FileNotFoundError when there is none and ValueError when the file is not one of ours.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: pass a report.json, or the folder write_report made")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): write the report again") from error
    if not isinstance(report, dict) or not {"title", "metrics", "config"} <= report.keys():
        raise ValueError(f"{path} is not a report of clim-eval: pass a report.json with title, metrics and config")
    return report


def combine_reports(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """{arm: {metric: value}} of several reports for one `write_report`; a report's own arms become "NAME / ARM"."""
    arms: dict[str, dict] = {}
    for name, report in reports.items():
        metrics = report["metrics"]
        if any(isinstance(value, dict) for value in metrics.values()):
            arms.update({f"{name} / {arm}": dict(values) for arm, values in metrics.items()})
        else:
            arms[name] = dict(metrics)
    return arms


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Markdown table: flat metrics as READOUT.REST are laid out as rows x columns, arms as columns side by side."""
    if not metrics:
        return "No metrics."
    if all(isinstance(value, Mapping) for value in metrics.values()):
        names = list(dict.fromkeys(name for values in metrics.values() for name in values))
        rows = [[name, *(show_number(name, values.get(name)) for values in metrics.values())] for name in names]
        return _markdown(["metric", *metrics], rows)
    heads = list(dict.fromkeys(name.partition(".")[0] for name in metrics))
    tails = list(dict.fromkeys(name.partition(".")[2] for name in metrics))
    if "" in tails or len(heads) < 2 or len(heads) * len(tails) > 2 * len(metrics):
        return _markdown(["metric", "value"], [[name, show_number(name, value)] for name, value in metrics.items()])
    cells = [
        [head, *(show_number(f"{head}.{tail}", metrics.get(f"{head}.{tail}")) for tail in tails)] for head in heads
    ]
    return _markdown(["", *tails], cells)


def show_number(name: str, value: float | None) -> str:
    """A metric for people: fractions (`FRACTION`) in percent with two digits, other numbers with four figures."""
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.2f} %" if FRACTION.search(name) else f"{value:.4g}"


def report_page(report: Mapping[str, Any]) -> str:
    """report.md of the content of a report.json."""
    parts = [f"# {report['title']}", f"Made {report['created']}.", metric_table(report["metrics"])]
    parts += list(report["notes"])
    parts += [f"## {name}\n\n![{name}](<{path}>)" for name, path in report["figures"].items()]
    if report["data"]:
        parts += ["## Data", _markdown(["", "value"], _leaves(report["data"]), text=True)]
    parts += ["## Configuration", _markdown(["option", "value"], _leaves(report["config"]), text=True)]
    parts += ["## Versions", _markdown(["package", "version"], _leaves(report["versions"]), text=True)]
    return "\n\n".join(parts) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON holds it: dataclasses as dicts, paths, dtypes and devices as text, nan as None.

    Raises ValueError for anything whose meaning would be lost.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.ndim == 0):
        return plain(value.item())
    if isinstance(value, os.PathLike | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a report cannot hold {value!r} of type {type(value).__name__}: pass numbers, text, lists, dicts")


def write_png(path: Path, figure: Figure | str | os.PathLike) -> None:
    """Save a matplotlib Figure as a PNG of 150 dpi, or copy an existing PNG; the file appears whole or not at all."""
    if isinstance(figure, str | os.PathLike):
        if not Path(figure).is_file():
            raise FileNotFoundError(f"{figure} does not exist: pass a matplotlib Figure or the path of a PNG")
        _write(path, Path(figure).read_bytes())
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(unfinished, dpi=150, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.08)
    os.replace(unfinished, path)


def _checked_metric(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _checked_metric(f"{name}.{key}", item) for key, item in value.items()}
    value = plain(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"metric {name!r} is {value!r}: pass a number")
    return value


def _leaves(tree: Any, prefix: str = "") -> list[list[str]]:
    if isinstance(tree, Mapping):
        return [row for key, item in tree.items() for row in _leaves(item, f"{prefix}.{key}" if prefix else key)]
    return [[prefix, "" if tree is None else str(tree)]]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(head))]
    # Names and texts to the left, numbers to the right, readable also as plain text.
    right = [bool(i) and not text for i in range(len(head))]
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for r, c, w in zip(right, row, widths)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for r, w in zip(right, widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "figure"


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)

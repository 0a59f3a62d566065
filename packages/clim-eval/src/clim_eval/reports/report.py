"""One report format: report.json for programs, report.md and figures for people."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.files import write_bytes

from clim_eval.pictures.files import write_png
from clim_eval.reports.coverage import Coverage, coverage_as_json, coverage_page
from clim_eval.reports.provenance import package_versions
from clim_eval.reports.tables import leaves, markdown, metric_table, to_jsonable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    folder: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, Any],
    config: Any,
    figures: Mapping[str, Figure | str | os.PathLike] | None = None,
    data: Mapping[str, Any] | None = None,
    coverage: Sequence[Coverage] = (),
    notes: Sequence[str] = (),
) -> dict:
    """Write report.json, report.md and figures/NAME.png into ``folder``.

    Every file appears whole or not at all, and report.json, which programs look for, comes last.
    Other files of the folder stay.

    Args:
        folder: created when missing.
        title: first line of the page.
        metrics: {name: number}, or {arm: {name: number}} to compare arms; None and nan are shown as
            "-".
        config: a dataclass or dict with the model, data and options behind the numbers.
        figures: {name: matplotlib Figure, or the path of a PNG to copy}.
        data: `data_fingerprint` of what was evaluated.
        coverage: scored and skipped items; all names are in report.json.
        notes: paragraphs, and tables for people, above the table of all metrics.

    Returns the content of report.json: title, created, metrics, coverage, config, data, versions,
    figures, notes.

    Raises:
        ValueError: a metric is not a number, or JSON cannot hold a value of config.
    """
    folder = Path(folder)
    metrics = {name: _checked_metric(name, value) for name, value in metrics.items()}
    nested = [isinstance(value, dict) for value in metrics.values()]
    if any(nested) and not all(nested):
        raise ValueError(
            "metrics mixes numbers and arms: pass {name: number} or {arm: {name: number}}"
        )

    figures = dict(figures or {})
    report = {
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": metrics,
        "coverage": coverage_as_json(coverage),
        "config": to_jsonable(config),
        "data": to_jsonable(data) if data is not None else None,
        "versions": package_versions(),
        "figures": {name: f"figures/{_file_name(name)}.png" for name in figures},
        "notes": list(notes),
    }
    _write_files(folder, report, figures)
    return report


def _write_files(
    folder: Path, report: dict, figures: Mapping[str, Figure | str | os.PathLike]
) -> None:
    """Write a report with its figures; report.json comes last."""
    # Both texts are made before the first file: a value that JSON cannot hold changes no file.
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False)
    page = report_page(report)

    (folder / "figures" if figures else folder).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_png(folder / report["figures"][name], figure)
    write_bytes(folder / "report.md", page.encode())
    write_bytes(folder / "report.json", text.encode())


def read_report(path: str | os.PathLike) -> dict:
    """Return the content of a report.json, given itself or its folder.

    Raises FileNotFoundError when there is none and ValueError when the file is not one of ours.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: pass a report.json, or the folder write_report made"
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): write the report again") from error
    if not isinstance(report, dict) or not {"title", "metrics", "config"} <= report.keys():
        raise ValueError(
            f"{path} is not a report of clim-eval: pass a report.json with title, metrics and "
            "config"
        )
    return report


def combine_reports(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return {arm: {metric: value}} of several reports for one `write_report`; a report's own arms
    become "NAME / ARM"."""
    arms: dict[str, dict] = {}
    for name, report in reports.items():
        metrics = report["metrics"]
        if any(isinstance(value, dict) for value in metrics.values()):
            arms.update({f"{name} / {arm}": dict(values) for arm, values in metrics.items()})
        else:
            arms[name] = dict(metrics)
    return arms


def report_page(report: Mapping[str, Any]) -> str:
    """Return report.md of the content of a report.json."""
    parts = [f"# {report['title']}", f"Made {report['created']}."]
    # Notes are tables and sentences for people; the table of all figures comes after them.
    parts += [*report["notes"], metric_table(report["metrics"])]
    parts += coverage_page(report.get("coverage", {}))
    parts += [f"## {name}\n\n![{name}](<{path}>)" for name, path in report["figures"].items()]
    if report["data"]:
        parts += ["## Data", markdown(["", "value"], leaves(report["data"]), text=True)]
    parts += [
        "## Configuration",
        markdown(["option", "value"], leaves(report["config"]), text=True),
    ]
    parts += [
        "## Versions",
        markdown(["package", "version"], leaves(report["versions"]), text=True),
    ]
    return "\n\n".join(parts) + "\n"


def _checked_metric(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _checked_metric(f"{name}.{key}", item) for key, item in value.items()}
    value = to_jsonable(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"metric {name!r} is {value!r}: pass a number")
    return value


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "figure"

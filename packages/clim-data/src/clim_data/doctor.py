"""Check a data root: which data sets are whole, broken or missing, and what they enable."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from clim_data.annotations.refer_files import ReferRecords
from clim_data.datasets import (
    DATASETS,
    Dataset,
    DatasetCheck,
    enabled_by,
    needed_datasets,
)
from clim_data.faults import BrokenSample
from clim_data.files.names import IMAGE_SUFFIXES
from clim_data.pixels.decode import load_rgb
from clim_data.sources.tars import END_MARK

PRESENT, BROKEN, MISSING = "present", "broken", "missing"
FOLDERS_OF = {
    "pngs": ("png",),
    "tars": ("tar",),
    "jsons": ("json",),
    "texts": ("txt",),
    "xmls": ("xml",),
}


@dataclass
class Finding:
    """State of one file or folder.

    state: "present", "broken" or "missing". detail: the finding, in words. source: where to get it.
    """

    path: str
    state: str
    detail: str
    source: str
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Diagnosis:
    """State of one data set: complete when everything it needs is present."""

    name: str
    title: str
    complete: bool
    findings: list[Finding]
    recipes: tuple[str, ...]


def diagnose(
    root: str | Path,
    needs: Iterable[str] = (),
    *,
    check_images: bool = False,
    check_json: bool = False,
) -> list[Diagnosis]:
    """Check data sets below `root`: those in `needs`, and those that the recipes of clim-train in
    `needs` train on; all known ones when empty.

    Folders are counted, annotation files checked for a whole beginning and end, shards for their
    end mark. `check_images` decodes every image, `check_json` parses every annotation file and
    counts its entries.

    Raises:
        FileNotFoundError: there is no such root. ValueError: a need is not known.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds your data sets")
    chosen = needed_datasets(list(needs) or DATASETS)
    seen: dict[DatasetCheck, Finding] = {}

    def look(check: DatasetCheck) -> Finding:
        if check not in seen:
            seen[check] = examine(root, check, check_images=check_images, check_json=check_json)
        return seen[check]

    return [_diagnose_one(dataset, look) for dataset in chosen]


def _diagnose_one(dataset: Dataset, look: Callable[[DatasetCheck], Finding]) -> Diagnosis:
    best: list[Finding] = []
    most = -1.0
    for checks in dataset.alternatives:
        found = [look(check) for check in checks]
        fraction = sum(finding.state == PRESENT for finding in found) / len(found)
        if fraction > most:
            best, most = found, fraction

    complete = all(finding.state == PRESENT for finding in best)
    return Diagnosis(dataset.name, dataset.title, complete, best, enabled_by(dataset))


def examine(
    root: Path, check: DatasetCheck, *, check_images: bool = False, check_json: bool = False
) -> Finding:
    """Find one file or folder below the root and judge it."""
    places = [root / folder / check.path for folder in check.folders]
    place = next((p for p in places if p.exists()), None)
    if place is None:
        return Finding(str(places[0]), MISSING, "not found", check.source)
    if check.kind == "json":
        return _examine_json(place, check, parse=check_json)
    if check.kind == "pickle":
        return _examine_pickle(place, check, parse=check_json)
    return _examine_folder(place, check, decode=check_images)


def _examine_json(path: Path, check: DatasetCheck, *, parse: bool) -> Finding:
    size = path.stat().st_size
    found = Finding(str(path), BROKEN, "", check.source, size)
    with open(path, "rb") as stream:
        start = stream.read(64).lstrip()[:1]
        stream.seek(max(0, size - 64))
        end = stream.read().rstrip()[-1:]
    if start + end not in (b"{}", b"[]"):
        found.detail = "not a whole json file: fetch it again"
        return found
    if not parse:
        found.state, found.detail = PRESENT, "begins and ends as json"
        return found
    try:
        content = json.loads(path.read_bytes())
    except ValueError as fault:
        found.detail = f"not valid json: {fault}"
        return found
    entries = content.get(check.table) if isinstance(content, dict) else content
    count = len(entries) if isinstance(entries, list) else 0
    found.state, found.detail = _judge(count, check.count, check.table)
    return found


def _examine_pickle(path: Path, check: DatasetCheck, *, parse: bool) -> Finding:
    """Judge a references pickle by its stop mark; with `parse` read it, without running code."""
    found = Finding(str(path), BROKEN, "", check.source, path.stat().st_size)
    with open(path, "rb") as stream:
        stream.seek(max(0, found.bytes - 1))
        ends = stream.read() == b"."
    if not ends:
        found.detail = "not a whole pickle: fetch it again"
        return found
    if not parse:
        found.state, found.detail = PRESENT, "ends as a pickle"
        return found
    try:
        refs = ReferRecords.read(path).refs
        found.state, found.detail = _judge(len(refs), check.count, check.table)
    except ValueError as fault:
        found.detail = str(fault)
    return found


def _examine_folder(path: Path, check: DatasetCheck, *, decode: bool) -> Finding:
    suffixes = {"images": IMAGE_SUFFIXES, **FOLDERS_OF}[check.kind]
    files, size = [], 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.rpartition(".")[2].lower() in suffixes and entry.is_file():
                files.append(entry.path)
                size += entry.stat().st_size
    state, detail = _judge(len(files), check.count, "files")
    found = Finding(str(path), state, detail, check.source, size)
    if check.kind == "tars":
        found.faults = [f"{file}: cut shard" for file in sorted(files) if not _is_whole_tar(file)]
    elif decode and check.kind in ("images", "pngs"):
        found.faults = list(_unreadable(sorted(files), path.name))
    if found.faults:
        found.state, found.detail = BROKEN, f"{detail}, {len(found.faults)} of them unreadable"
    return found


def _judge(count: int, expected: int | None, unit: str) -> tuple[str, str]:
    if expected is None:
        return (PRESENT if count else BROKEN), f"{count:,} {unit}"
    if count < expected:
        return BROKEN, f"{count:,} of {expected:,} {unit}"
    return PRESENT, f"{count:,} {unit}"


def _is_whole_tar(path: str) -> bool:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - END_MARK))
        end = stream.read()
    return len(end) == END_MARK and not any(end)


def _unreadable(files: list[str], label: str) -> Iterable[str]:
    for file in tqdm(files, desc=f"decoding {label}", unit="image"):
        try:
            load_rgb(file, name=file)
        except BrokenSample as fault:
            yield str(fault)


def to_text(diagnoses: list[Diagnosis], *, max_faults: int = 10, missing_whole: bool = True) -> str:
    """Write the findings of `diagnose` as text for people.

    Without `missing_whole`, data sets of which nothing is there are named in one line at the end.
    """
    lines, absent = [], []
    for dataset in diagnoses:
        if not missing_whole and all(f.state == MISSING for f in dataset.findings):
            absent.append(dataset.name)
            continue
        state = "complete  " if dataset.complete else "incomplete"
        lines.append(f"{state}  {dataset.name}: {dataset.title}")
        for f in dataset.findings:
            size = f" ({f.bytes / 1e6:,.1f} MB)" if f.bytes else ""
            lines.append(f"    {f.state:8} {f.path}: {f.detail}{size}")
            lines += [f"             {fault}" for fault in f.faults[:max_faults]]
            if len(f.faults) > max_faults:
                lines.append(f"             and {len(f.faults) - max_faults} more")
            if f.state != PRESENT:
                lines.append(f"             from {f.source}")
        lines.append(f"    enables  {', '.join(dataset.recipes)}")
    if absent:
        lines.append(f"not here: {', '.join(absent)} (--need NAME says where each comes from)")
    return "\n".join(lines)


def to_json(diagnoses: list[Diagnosis]) -> str:
    """Write the findings of `diagnose` as json."""
    return json.dumps([asdict(d) for d in diagnoses], indent=2)

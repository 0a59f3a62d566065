"""Write webdataset shards: the images' own bytes and one json per sample, in parallel, resumable.

A shard appears under its name only when it is whole, together with an index that makes opening it
fast. Running the same pack again finds every shard done and writes nothing; after a kill it writes
the missing shards. The bytes of a shard depend on the input only.
"""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from clim_data.faults import BrokenSample, SampleWarning, SkipReport, check_on_error
from clim_data.files.atomic import write_json, write_whole
from clim_data.files.names import inside, locate
from clim_data.files.stamps import file_stamp
from clim_data.pixels.decode import SUFFIX_OF_FORMAT, load_rgb, open_image
from clim_data.pixels.frames import check_frame
from clim_data.processes.worker_signals import end_with_parent, workers_ended_on_error
from clim_data.sources.indexes import INDEX_SUFFIX, index_tar
from clim_data.sources.items import PackItem, PackList
from clim_data.sources.pack_folder import claim, no_drafts, only_packer, write_manifest


@dataclass
class PackReport:
    """The result of a pack.

    shards, samples, bytes: in all. written: number of shards that were written now. skipped:
    skipped samples, and warnings about packed ones.
    """

    folder: Path
    shards: int = 0
    written: int = 0
    samples: int = 0
    bytes: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)


@dataclass(frozen=True)
class _ShardJob:
    path: str
    items: list[PackItem]
    plan: str
    check_images: bool
    on_error: str
    overwrite: bool


def write_shards(
    listing: PackList,
    folder: str | Path,
    *,
    name: str = "shard",
    samples_per_shard: int = 1000,
    workers: int = 1,
    check_images: bool = False,
    on_error: str = "skip",
    overwrite: bool = False,
) -> PackReport:
    """Write the samples of `listing` to `folder/NAME-000000.tar`, ... and a manifest `pack.json`.

    Args:
        listing: from a function of `clim_data.sources.items`.
        samples_per_shard: listed samples per shard; skipped ones make their shard smaller.
        workers: processes; 1 works in this one.
        check_images: decode every image now (otherwise headers only, and the loader skips what
            breaks off).
        on_error: "skip" skips and names samples that cannot be packed; "raise" stops at the first.
        overwrite: replace shards of another pack in the folder; otherwise that is an error.

    Raises:
        ValueError: an option is out of range, the folder holds another pack, or nothing can be
            packed.
    """
    check_on_error(on_error)
    for option, value in (("samples_per_shard", samples_per_shard), ("workers", workers)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{option}={value!r} must be a whole number of at least 1")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    jobs = []
    for number, start in enumerate(range(0, len(listing.items), samples_per_shard)):
        items = listing.items[start : start + samples_per_shard]
        plan = _digest([item.identity() for item in items], check_images)
        path = str(folder / f"{name}-{number:06d}.tar")
        jobs.append(_ShardJob(path, items, plan, check_images, on_error, overwrite))

    report = PackReport(folder, shards=len(jobs), skipped=SkipReport(listing.warnings))
    plan = _digest([job.plan for job in jobs], name)
    manifest = {"kind": listing.kind, "plan": plan, **listing.common}
    shards: dict[str, list[int] | None] = {Path(job.path).name: None for job in jobs}

    # Whoever holds the folder is its only writer, so drafts in it are of killed packs.
    with only_packer(folder) as lock, no_drafts(folder, name):
        claim(folder, name, {**manifest, "shards": shards}, overwrite=overwrite)
        for done in _run(jobs, workers, lock):
            report.written += done["written"]
            report.samples += done["samples"]
            report.bytes += done["bytes"]
            report.skipped.extend(BrokenSample(*fault) for fault in done["skipped"])
            report.skipped.extend(SampleWarning(*warning) for warning in done["warnings"])
            shards[done["name"]] = [done["samples"], done["bytes"]]
        write_manifest(folder, {**manifest, "shards": shards})
    if not report.samples:
        faults = report.skipped.summary(3)
        raise ValueError(f"nothing could be packed: {faults}; check the image folder")
    return report


def _run(jobs: list[_ShardJob], workers: int, lock: int) -> Iterator[dict]:
    with tqdm(total=sum(len(job.items) for job in jobs), desc="packing", unit="image") as bar:
        if workers == 1:
            for job in jobs:
                yield _make_shard(job)
                bar.update(len(job.items))
            return
        count = min(workers, len(jobs) or 1)
        context = multiprocessing.get_context("fork")
        with (
            ProcessPoolExecutor(count, context, _start_worker, (lock, os.getpid())) as pool,
            workers_ended_on_error(pool),
        ):
            running = {pool.submit(_make_shard, job): len(job.items) for job in jobs}
            for future in as_completed(running):
                yield future.result()
                bar.update(running[future])


def _start_worker(lock: int, parent: int) -> None:
    """Begin a packing process: it holds no lock, leaves Ctrl-C to its parent and ends with it."""
    os.close(lock)  # inherited by the fork: it would keep the folder after a kill of the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(parent)


def _make_shard(job: _ShardJob) -> dict:
    """Write one shard unless it exists already; return its counts and its faults."""
    path = Path(job.path)
    sidecar = path.with_name(path.name + INDEX_SUFFIX)
    record = _finished(path, sidecar, job.plan)
    if record is None or _has_other_images(job, record):
        sidecar.unlink(missing_ok=True)
        with write_whole(path) as draft:
            told = _write_tar(draft, job)
            record = {**index_tar(draft, path.name).to_json(), "plan": job.plan, **told}
        write_json(sidecar, record)
        written = 1
    else:
        written = 0
    if record["skipped"] and job.on_error == "raise":
        raise BrokenSample(*record["skipped"][0])
    return {
        "name": path.name,
        "written": written,
        "samples": len(record["samples"]),
        "bytes": record["tar_bytes"],
        "skipped": record["skipped"],
        "warnings": record.get("warnings", []),  # packs of earlier releases have none
    }


def _has_other_images(job: _ShardJob, record: dict) -> bool:
    """Whether a file that was packed is another one now, or one that was skipped can be packed.

    Files that have gone since they were packed are still in the shard: they change nothing.

    Raises:
        ValueError: some files are others and some have gone, which a new shard would lose.
    """
    others, gone = 0, 0
    for item, stamps in zip(job.items, record["sources"], strict=True):
        if item.fault is not None:
            continue
        if stamps is None:
            others += _can_be_packed(item, check=job.check_images)
            continue
        now = _stamps(item)
        if now is None:
            gone += 1
        else:
            others += now != stamps
    if others and gone and not job.overwrite:
        raise ValueError(
            f"{others} images of {job.path} changed since they were packed, and {gone} have gone: "
            "bring these back, or use --overwrite to pack what is there"
        )
    return others > 0


def _can_be_packed(item: PackItem, *, check: bool) -> bool:
    try:
        _members(item, check=check)
    except BrokenSample:
        return False
    return True


def _stamps(item: PackItem) -> list[list[int]] | None:
    """Size and time of modification of each file of a sample; None for a missing file."""
    try:
        paths = [locate(item.folder, item.file or item.name)]
        paths += [inside(*place) for _, place in sorted(item.files.items())]
    except (OSError, BrokenSample):
        return None

    stamps: list[list[int]] = []
    for path in paths:
        stamp = file_stamp(path)
        if stamp is None:
            return None
        stamps.append(list(stamp))  # as json gives it back
    return stamps


def _finished(path: Path, sidecar: Path, plan: str) -> dict | None:
    """Index record of a shard that is whole and made by the same plan, else None."""
    try:
        record = json.loads(sidecar.read_bytes())
        if record["plan"] != plan or not isinstance(record["sources"], list):
            return None
        # Headers are compared in full: a shard that was cut or exchanged is written anew.
        index = index_tar(path, path.name).to_json()
        return record if all(record[name] == index[name] for name in index) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_tar(part: Path, job: _ShardJob) -> dict[str, list]:
    """Write a shard.

    Returns:
        "skipped" and "warnings", each as lists of reason, name and detail; "sources", the stamps
        of each item's files or None; "names", file names of the samples, as in their jsons.
    """
    skipped: list[list[str]] = []
    warnings: list[list[str]] = []
    names: list[str] = []
    sources: list[list[list[int]] | None] = []
    with tarfile.open(part, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for item in job.items:
            stamps = _stamps(item)  # before the files are read: a later change is seen
            try:
                members, warning = _members(item, check=job.check_images)
            except BrokenSample as fault:
                if job.on_error == "raise":
                    raise
                skipped.append([fault.reason, fault.name, fault.detail])
                sources.append(None)
                continue

            sources.append(stamps)
            names.append(item.meta.get("file_name", ""))
            if warning is not None:
                warnings.append([warning.reason, warning.name, warning.detail])
            for suffix, data in members:
                info = tarfile.TarInfo(f"{item.key}.{suffix}")  # time, owner, mode are constants
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {"skipped": skipped, "warnings": warnings, "sources": sources, "names": names}


def _members(
    item: PackItem, *, check: bool
) -> tuple[list[tuple[str, bytes]], SampleWarning | None]:
    """Return (suffix, bytes) of the files of a sample, image, further files and json, and a warning
    about the image's frame, or None."""
    if item.fault is not None:
        raise BrokenSample(*item.fault)
    path = str(locate(item.folder, item.file or item.name))
    data = _read(path)
    image = open_image(data, path)
    warning = None if item.size is None else check_frame(image, item.size, path)
    suffix, (width, height) = SUFFIX_OF_FORMAT.get(image.format or ""), image.size
    if suffix is None:
        raise BrokenSample(
            "unsupported format", path, f"{image.format}; convert it to jpg, png or webp"
        )
    if check:
        load_rgb(image, name=path)
    more = [(name, _read(str(inside(*place)))) for name, place in sorted(item.files.items())]
    meta = {"key": item.key, "width": width, "height": height, **item.meta}
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False)
    return [(suffix, data), *more, ("json", text.encode())], warning


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        reason = "missing image" if isinstance(fault, FileNotFoundError) else "unreadable image"
        raise BrokenSample(reason, path, fault.strerror or str(fault)) from None


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

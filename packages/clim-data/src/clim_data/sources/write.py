"""Write webdataset shards: original image bytes and one json a sample, in parallel, resumable,
atomic.

A shard appears under its name only when it is whole, together with an index that makes opening it
fast. Running the same pack again finds every shard done and writes nothing; after a kill it writes
what is missing. The bytes of a shard depend on the input only.
"""

import fcntl
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.atomic import write_json, write_whole
from clim_data.files.names import inside, locate
from clim_data.pixels.decode import SUFFIX_OF_FORMAT, load_rgb, open_image
from clim_data.pixels.frames import check_frame
from clim_data.sources.indexes import INDEX_SUFFIX, index_tar
from clim_data.sources.items import PackItem, PackList
from clim_data.sources.packs import MANIFEST


@dataclass
class PackReport:
    """What a pack did: shards in all, of these written now; samples and bytes in all; what was left
    out."""

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
        samples_per_shard: listed samples a shard; those that are left out make their shard smaller.
        workers: processes; 1 works in this one.
        check_images: decode every image now (otherwise headers only, and the loader skips what
            breaks off).
        on_error: "skip" leaves out and names what cannot be packed; "raise" stops at the first.
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
    chunks = [
        listing.items[i : i + samples_per_shard]
        for i in range(0, len(listing.items), samples_per_shard)
    ]
    jobs = []
    for number, items in enumerate(chunks):
        plan = _digest([item.identity() for item in items], check_images)
        jobs.append(
            _ShardJob(str(folder / f"{name}-{number:06d}.tar"), items, plan, check_images, on_error)
        )
    report = PackReport(folder, shards=len(jobs))
    plan = _digest([job.plan for job in jobs], name)
    with _only_packer(folder):
        _claim(
            folder,
            name,
            {"kind": listing.kind, "plan": plan, **listing.common},
            jobs,
            overwrite=overwrite,
        )
        for done in _run(jobs, workers):
            report.written += done["written"]
            report.samples += done["samples"]
            report.bytes += done["bytes"]
            report.skipped.extend(BrokenSample(*fault) for fault in done["skipped"])
    if not report.samples:
        raise ValueError(
            f"nothing could be packed: {report.skipped.summary(3)}; check the image folder"
        )
    return report


def _run(jobs: list[_ShardJob], workers: int) -> Iterator[dict]:
    with tqdm(total=sum(len(job.items) for job in jobs), desc="packing", unit="image") as bar:
        if workers == 1:
            for job in jobs:
                yield _make_shard(job)
                bar.update(len(job.items))
            return
        with ProcessPoolExecutor(min(workers, len(jobs) or 1)) as pool:
            running = {pool.submit(_make_shard, job): len(job.items) for job in jobs}
            try:
                for future in as_completed(running):
                    yield future.result()
                    bar.update(running[future])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _make_shard(job: _ShardJob) -> dict:
    """Write one shard unless it is there already; returns its counts and what was left out."""
    path = Path(job.path)
    sidecar = path.with_name(path.name + INDEX_SUFFIX)
    record = _finished(path, sidecar, job.plan)
    if record is None or _has_new_images(job, record["skipped"]):
        sidecar.unlink(missing_ok=True)
        with write_whole(path) as draft:
            skipped = _write_tar(draft, job)
            record = {**index_tar(draft).to_json(), "plan": job.plan, "skipped": skipped}
        write_json(sidecar, record)
        written = 1
    else:
        written = 0
    if record["skipped"] and job.on_error == "raise":
        raise BrokenSample(*record["skipped"][0])
    size = {"samples": len(record["samples"]), "bytes": record["tar_bytes"]}
    return {"written": written, "skipped": record["skipped"], **size}


def _has_new_images(job: _ShardJob, skipped: list[list[str]]) -> bool:
    """Whether an image that was missing when the shard was written is there now."""
    missing = {fault[1] for fault in skipped if fault[0] == "missing image"}
    if not missing:
        return False
    for item in job.items:
        if item.fault is None and str(inside(item.folder, item.name)) in missing:
            with suppress(BrokenSample):
                locate(item.folder, item.name)
                return True
    return False


def _finished(path: Path, sidecar: Path, plan: str) -> dict | None:
    """Index record of a shard that is whole and made by the same plan, else None."""
    try:
        record = json.loads(sidecar.read_bytes())
        return (
            record
            if record["plan"] == plan and record["tar_bytes"] == path.stat().st_size
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_tar(part: Path, job: _ShardJob) -> list[list[str]]:
    skipped = []
    with open(part, "wb") as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for item in job.items:
                try:
                    members = _members(item, check=job.check_images)
                except BrokenSample as fault:
                    if job.on_error == "raise":
                        raise
                    skipped.append([fault.reason, fault.name, fault.detail])
                    continue
                for suffix, data in members:
                    info = tarfile.TarInfo(
                        f"{item.key}.{suffix}"
                    )  # time, owner and mode are constants
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        out.flush()
        os.fsync(out.fileno())
    return skipped


def _members(item: PackItem, *, check: bool) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of the files of a sample: image, further files, json."""
    if item.fault is not None:
        raise BrokenSample(*item.fault)
    path = str(locate(item.folder, item.name))
    data = _read(path)
    image = open_image(data, path)
    if item.size is not None:
        check_frame(image, item.size, path)
    suffix, (width, height) = SUFFIX_OF_FORMAT.get(image.format or ""), image.size
    if suffix is None:
        raise BrokenSample(
            "unsupported format", path, f"{image.format}; convert it to jpg, png or webp"
        )
    if check:
        load_rgb(image, name=path)
    more = [(name, _read(str(inside(*place)))) for name, place in sorted(item.files.items())]
    meta = {"key": item.key, "width": width, "height": height, **item.meta}
    return [
        (suffix, data),
        *more,
        ("json", json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()),
    ]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        raise BrokenSample("missing image", path, fault.strerror or str(fault)) from None


def _claim(
    folder: Path, name: str, manifest: dict, jobs: list[_ShardJob], *, overwrite: bool
) -> None:
    """Make the folder this pack's own: refuse or clear another pack's shards, write the manifest
    once."""
    planned = {Path(job.path).name for job in jobs}
    others = [p for p in folder.glob(f"{name}-*.tar") if p.name not in planned]
    place = folder / MANIFEST
    try:
        before = json.loads(place.read_bytes())
    except (OSError, ValueError):
        before = None
    if not overwrite and (
        others or (before is not None and before.get("plan") != manifest["plan"])
    ):
        raise ValueError(
            f"{folder} holds shards of another pack: use an empty folder, or --overwrite to "
            "replace them"
        )
    for stale in [*others, *folder.glob(f".{name}-*.part")]:
        stale.unlink(missing_ok=True)
        stale.with_name(stale.name + INDEX_SUFFIX).unlink(missing_ok=True)
    if before != manifest:
        write_json(place, manifest)


@contextmanager
def _only_packer(folder: Path) -> Iterator[None]:
    """Hold the folder so that two packs cannot write to it at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(
            f"another pack is writing to {folder}: wait for it, or use another folder"
        ) from None
    finally:
        os.close(handle)


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

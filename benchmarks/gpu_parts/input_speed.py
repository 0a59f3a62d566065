"""How fast batches come from JPEG files, and whether that feeds the training step on the device.

The rates of the steps are those that `step_speed` has left beside this part's json. Loading needs
no GPU.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clim_data import BoxLoader, CropLoader, MosaicConfig, MosaicLoader

from gpu_parts.record import Part
from gpu_parts.training_cases import Photos, write_photos

WORKERS = (16, 8, 1)
SECONDS = 4.0  # for each loader and number of workers
IMAGES, NAMES = 32, 4096  # different photographs, and the names under which they are in the folder

# Kind of batch -> the figure of `step_speed` that it has to feed.
STEPS = {
    "mosaics": "CLIM EVA02-B/16 at 1024 px, 32 images",
    "letterboxes and crops": "CLIPSelf EVA02-B/16 at 1024 px, 2 images",
}


def run(part: Part) -> None:
    photos = many_photos(part)
    steps = step_rates(part.path.with_name("step_speed.json"))
    began = time.monotonic()
    for workers in (1, 0) if part.tiny else WORKERS:
        for kind, make in loaders(part, photos).items():
            if time.monotonic() - began > part.seconds - 2 * SECONDS:
                part.check(f"{kind}, {workers} workers", False, "left out: no time")
                continue
            with part.guarded(f"{kind}, {workers} workers"):
                report(
                    part,
                    kind,
                    workers,
                    measure(make, workers, 0.2 if part.tiny else SECONDS),
                    steps,
                )


def report(part: Part, kind: str, workers: int, rate: float, steps: dict[str, float]) -> None:
    """The rate of a loader, beside the rate of the training step that takes such batches."""
    part.figure(f"{kind}, {workers} workers", rate, "samples/s")
    step = steps.get(STEPS.get(kind, ""))
    if step is not None:
        detail = f"{rate:.0f} samples/s loaded, {step:.0f} trained"
        # One process per GPU has 16 cores there; with fewer workers a slower rate is no fault.
        fed = rate >= step
        part.check(
            f"{kind}, {workers} workers: a step is fed", fed or workers < max(WORKERS), detail
        )


def step_rates(path: Path) -> dict[str, float]:
    """Samples/s by the name of the figure; none where `step_speed` has not run."""
    if not path.is_file():
        return {}
    figures = json.loads(path.read_text())["figures"]
    return {figure["name"]: figure["value"] for figure in figures if figure["unit"] == "samples/s"}


def measure(make: Callable[[int], Any], workers: int, seconds: float) -> float:
    """Samples per second of a loader that runs: what its workers prepare while they start is left
    out."""
    batches = iter(make(workers))
    # Each worker has two batches ready before anybody asks for them.
    for _ in range(2 * max(workers, 1)):
        next(batches)
    samples, began = 0, time.perf_counter()
    for batch in batches:
        samples += len(batch)
        if time.perf_counter() - began > seconds:
            break
    return samples / (time.perf_counter() - began)


def loaders(part: Part, photos: Photos) -> dict[str, Callable[[int], Any]]:
    """Kind of batch -> a loader with so many workers, at the sizes and batches of the recipes."""
    side, crop = (64, 32) if part.tiny else (1024, 224)
    folder, two = str(photos.images), {"batch_size": 2, "image_px": side}
    mosaic = MosaicConfig(canvas_px=side, single_px=crop)
    return {
        "mosaics": lambda workers: MosaicLoader(
            [folder], batch_size=32, mosaic=mosaic, workers=workers
        ),
        "letterboxes and crops": lambda workers: CropLoader(
            [folder], crop_px=crop, workers=workers, **two
        ),
        "letterboxes and labels": lambda workers: BoxLoader(
            [folder], boxes=photos.boxes, workers=workers, **two
        ),
    }


def many_photos(part: Part) -> Photos:
    """A folder with thousands of names: generating so many photographs would take longer than
    reading them."""
    images, names = (4, 256) if part.tiny else (IMAGES, NAMES)
    photos = write_photos(part.folder / "photos", images, (48, 64) if part.tiny else (480, 640))
    content = json.loads(photos.boxes.read_text())
    records, boxes = list(content["images"]), list(content["annotations"])
    for copy in range(1, names // images):
        for record in content["images"]:
            stem = Path(record["file_name"]).stem
            for suffix in ("jpg", "txt"):
                target = photos.images / f"{stem}-{copy}.{suffix}"
                target.unlink(missing_ok=True)
                os.link(photos.images / f"{stem}.{suffix}", target)
            number = copy * images + record["id"]
            records.append({**record, "id": number, "file_name": f"{stem}-{copy}.jpg"})
        first = len(boxes)
        boxes += [
            {**box, "id": first + i, "image_id": copy * images + box["image_id"]}
            for i, box in enumerate(content["annotations"])
        ]
    photos.boxes.write_text(json.dumps({**content, "images": records, "annotations": boxes}))
    return photos

"""Hashes of the first batches of every loader, on pictures made of whole numbers only."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data import BoxLoader, CropLoader, MosaicConfig, MosaicLoader
from flmm import GroundingLoader
from house import access
from PIL import Image

BATCHES = 5
RANKS = 2
WORKERS = (0, 2)
LOADERS = ("MosaicLoader", "CropLoader", "BoxLoader", "GroundingLoader")
PICTURES = 48
# Random backgrounds and crops follow from the seed: not 0, so that the seed is seen to count.
SEED = 3


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Return (height, width, 3) uint8: slopes whose steepness and colours depend on the number."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [
        (rows * (number % 5 + c) + columns * (number % 7 + 2 * c)) // 2 % 256 for c in range(3)
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def write_data(folder: Path) -> Path:
    """Write images with captions, and a COCO json of boxes.

    Every fourth image is a png, and every third of these has transparent pixels.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    records: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []

    for number in range(PICTURES):
        height, width = 96 + 8 * (number % 5), 128 - 8 * (number % 6)
        pixels = Image.fromarray(picture(number, height, width))
        if number % 12 == 0:
            pixels.putalpha(Image.fromarray(picture(number + 1, height, width)[..., 0]))

        name = f"{number:04d}.{'png' if number % 4 == 0 else 'jpg'}"
        pixels.save(images / name)
        (images / f"{number:04d}.txt").write_text(f"slope {number}\nanother slope {number}\n")

        records.append({"id": number, "file_name": name, "height": height, "width": width})
        for k in range(number % 4):
            box = [4 * k, 6 * k + 2, 30 + number, 40.5]
            category = 1 + (number + k) % 3
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number % 9 == 1),
                }
            )

    categories = [{"id": i, "name": name} for i, name in ((1, "hill"), (2, "dale"), (3, "ridge"))]
    content = {"images": records, "annotations": boxes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


def make_loader(name: str, data: Path, *, rank: int, workers: int) -> Any:
    """Make the loader of one of two ranks."""
    stream = {"seed": SEED, "rank": rank, "world_size": RANKS, "workers": workers}
    images = [str(data / "images")]

    if name == "MosaicLoader":
        mosaic = MosaicConfig(canvas_px=96, single_px=32, mix={2: 1, 3: 1}, min_singles=1)
        return MosaicLoader(images, batch_size=6, mosaic=mosaic, background="random", **stream)
    if name == "CropLoader":
        return CropLoader(images, batch_size=3, image_px=64, crop_px=32, scales=(48, 64), **stream)
    if name == "BoxLoader":
        return BoxLoader(
            images, batch_size=3, image_px=64, boxes=data / "boxes.json", max_boxes=2, **stream
        )

    grounding = access.helper("grounding")
    model = grounding.tiny_grounded()
    sources = {"pictures": grounding.Pictures((1, 2, 3, 1, 2, 4, 1, 3, 2, 1))}
    return GroundingLoader(sources, model.lmm, square=model.sam.square, batch_size=2, **stream)


def collect(name: str, data: Path, *, rank: int, workers: int) -> list[dict[str, Any]]:
    """Describe the first batches: sha256 of all that a batch holds, and figures with tolerances.

    Other machines compare the figures, which are the names of the samples and means of tensors.
    """
    loader = make_loader(name, data, rank=rank, workers=workers)
    found = []
    while len(found) < BATCHES:
        for batch in islice(loader, BATCHES - len(found)):
            found.append(
                {"sha256": digest(batch), "keys": list(batch.keys), "tensors": summaries(batch)}
            )
    return found


def digest(batch: Any) -> str:
    """Hash everything in a batch, in the order of its fields.

    Names of classes and fields do not count, so that they can be renamed.
    """
    total = hashlib.sha256()
    for leaf in leaves(batch):
        if isinstance(leaf, torch.Tensor):
            total.update(f"{leaf.dtype} {tuple(leaf.shape)} ".encode())
            total.update(leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            total.update(repr(leaf).encode())
    return total.hexdigest()


def summaries(batch: Any) -> list[list[float]]:
    """Return size and mean of every tensor of a batch."""
    tensors = [leaf for leaf in leaves(batch) if isinstance(leaf, torch.Tensor)]
    return [[t.numel(), t.double().mean().item() if t.numel() else 0.0] for t in tensors]


def leaves(value: Any) -> Iterator[Any]:
    """Yield tensors, numbers and texts of nested dataclasses, mappings and sequences, not None."""
    if value is None:
        return
    if isinstance(value, np.ndarray):
        yield torch.from_numpy(np.ascontiguousarray(value))
    elif isinstance(value, torch.Tensor | str | bytes | bool | int | float):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield key
            yield from leaves(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        raise TypeError(
            f"a batch holds a {type(value).__name__}, which has no hash yet: add it to `leaves`"
        )

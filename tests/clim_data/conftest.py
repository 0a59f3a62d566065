"""Generated images and shards for the tests of clim_data."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIM_DATA_CACHE", str(tmp_path / "cache"))


def smooth_pixels(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth colour pattern, (height, width, 3) uint8, that JPEG keeps well."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x * rng.uniform(0.02, 0.2) + y * rng.uniform(0.02, 0.2) + rng.uniform(0, 6))
        for _ in range(3)
    ]
    return ((np.stack(waves, axis=-1) * 0.45 + 0.5) * 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def images():
    """Functions that make test images: `images.pixels(seed, h, w)`, `images.encoded(array,
    "PNG")`."""
    return type(
        "Images", (), {"pixels": staticmethod(smooth_pixels), "encoded": staticmethod(encoded)}
    )


@pytest.fixture
def tar():
    """`tar(path, [(member name, bytes), ...])` writes a plain tar."""
    return write_tar


@pytest.fixture
def write_json(tmp_path):
    """`write_json(name, images, annotations, categories=...)` writes a COCO file; returns its
    path."""

    def write(name, images, annotations, categories=({"id": 1, "name": "object"},)):
        path = tmp_path / name
        path.write_text(
            json.dumps(
                {"images": images, "annotations": annotations, "categories": list(categories)}
            )
        )
        return path

    return write


@pytest.fixture
def make_shards(tmp_path):
    """`make_shards([5, 3], ...)` writes shards of so many samples; returns their paths.

    Sample keys are "000000", "000001", ... over all shards and captions "caption 0 of 000000", ...
    """

    def make(counts, *, height=40, width=56, captions=1, folder="shards", layout="clim"):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        paths, number = [], 0
        for shard, count in enumerate(counts):
            members = []
            for _ in range(count):
                key = f"{number:06d}"
                texts = [f"caption {c} of {key}" for c in range(captions)]
                members.append((f"{key}.jpg", encoded(smooth_pixels(number, height, width))))
                if layout == "clim":
                    members.append((f"{key}.json", json.dumps({"captions": texts}).encode()))
                else:
                    members.append(
                        (
                            f"{key}.json",
                            json.dumps({"caption": texts[0], "status": "success"}).encode(),
                        )
                    )
                    members.append((f"{key}.txt", texts[0].encode()))
                number += 1
            paths.append(write_tar(target / f"part-{shard:05d}.tar", members))
        return [str(p) for p in paths]

    return make


@pytest.fixture
def coco_cc():
    """The folder of freely licensed COCO photos, found through CLIM_DATA or beside the checkout."""
    root = Path(os.environ.get("CLIM_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root / "coco_cc"
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}: set CLIM_DATA to the folder that holds coco_cc")
    return folder

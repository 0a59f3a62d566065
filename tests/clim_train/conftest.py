"""Tiny towers for the training tests, on one thread: two only wait for each other on tensors this
small."""

import io
import tarfile

import pytest
import torch
from PIL import Image
from tiny_training import register_tiny_towers


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _tiny_towers():
    register_tiny_towers()


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Two shards of 40 small pictures with captions."""
    folder = tmp_path_factory.mktemp("shards")
    noise = torch.Generator().manual_seed(0)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(20 * shard, 20 * shard + 20):
                pixels = torch.randint(0, 256, (20, 24, 3), generator=noise, dtype=torch.uint8)
                picture = io.BytesIO()
                Image.fromarray(pixels.numpy()).save(picture, "png")
                for suffix, content in (
                    ("png", picture.getvalue()),
                    ("txt", f"picture number {i % 30}".encode()),
                ):
                    entry = tarfile.TarInfo(f"{i:05d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return folder

import os

import pytest
import torch
from clim_data.readers import class_images
from clim_eval.evaluators.cached import CachedItems, tensor_bytes
from PIL import Image


@pytest.mark.parametrize("workers", [0, 1])
def test_cached_items_stay_within_the_budget(toy, workers):
    data = toy.Regions(9)
    loader = CachedItems(data, batch_size=4, workers=workers, budget=3 * tensor_bytes(data[4]))
    for _ in range(2):
        expected, batches = len(loader), list(loader)
        assert len(batches) == expected
        items = {item.image_id: item for batch in batches for item in batch}
        assert sorted(items) == [1000 + i for i in range(9)]
        assert all(torch.equal(items[1000 + i].image, data[i].image) for i in range(9))
    cached = [item for _, item in loader._items.values()]
    assert 0 < len(cached) < 9
    assert sum(map(tensor_bytes, cached)) <= 3 * tensor_bytes(data[4])
    assert not any(item.image.is_shared() for item in cached)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_repaired_and_a_replaced_image_are_read_again(tmp_path, workers):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / name / "1.png")
    (tmp_path / "a" / "1.png").write_bytes(b"<html>403</html>")
    loader = CachedItems(class_images(tmp_path, 8), batch_size=2, workers=workers)

    def read():
        items = [item for batch in loader for item in batch]
        return {item.name: (item.label, int(item.image[0, 0, 0])) for item in items}

    assert read() == {"a/1.png": (-1, 0), "b/1.png": (1, 200), "c/1.png": (2, 200)}

    for name in ("a", "b"):
        Image.new("RGB", (8, 8), (90, 0, 0)).save(tmp_path / name / "1.png")
    os.utime(tmp_path / "b" / "1.png", ns=(1, 1))  # a clock too coarse to tell the writes apart
    assert read() == {"a/1.png": (0, 90), "b/1.png": (1, 90), "c/1.png": (2, 200)}
    assert loader.room == 4e9 - 3 * 3 * 8 * 8

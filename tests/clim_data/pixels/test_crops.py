import json
import random
import re

import numpy as np
import pytest
import torch
from clim_data import BoxLoader, CropLoader
from clim_data.pixels import transforms as T
from clim_data.pixels.crops import (
    crop_window,
    cut_crops,
    draw_cells,
    draw_order,
    enough_pixels,
    grid_boxes,
    grid_choices,
)
from clim_data.pixels.decode import load_rgb, pixels
from clim_data.streams import region_batches
from golden_pixels import same_pillow

# levels by which torchvision's resizer may differ from Pillow's: both round between their two
# passes
GREY = 2


def test_golden_grids(golden):
    case = golden("case05_grid")
    choices = [key for key in case.meta["keys"] if key.startswith("out/choices_max_split_")]
    boxes = [key for key in case.meta["keys"] if re.fullmatch(r"out/boxes_\d+x\d+", key)]
    assert choices
    assert boxes
    for key in choices:
        expected = [tuple(pair) for pair in case.tensor(key).tolist()]
        assert grid_choices(int(key.rpartition("_")[2])) == expected
    for key in boxes:
        rows, columns = map(int, key.rpartition("_")[2].split("x"))
        assert torch.equal(grid_boxes(rows, columns), case.tensor(key))


def data_of(golden):
    """(case, json, image folder, function from grey levels to normalised values) of the small data
    set."""
    case = golden("case05_datasets")
    folder = case.folder / "case07_data"
    stats = golden("case07_panoptic").meta["config"]
    mean, std = (torch.tensor(stats[k])[:, None, None] for k in ("mean", "std"))
    record = json.loads((folder / "instances.json").read_text())
    return case, record, folder, lambda image: (image.float() / 255 - mean) / std


def annotations_of(record, image):
    return [a for a in record["annotations"] if a["image_id"] == image["id"]]


def item_numbers(case, kind):
    found = {
        int(m.group(1))
        for key in case.meta["keys"]
        if (m := re.match(rf"out/{kind}/\w+?(\d+)/", key))
    }
    assert found
    return sorted(found)


def check_crops(picture, windows, expected, normalised):
    """Pillow's crops are the reference's; those of the fast path are within the resizer's rounding
    of them."""
    exact = cut_crops(picture, windows, expected.shape[-1])
    torch.testing.assert_close(normalised(exact), expected, atol=5e-6, rtol=0)
    fast = cut_crops(pixels(picture), windows, expected.shape[-1])
    assert (fast.int() - exact.int()).abs().max() <= GREY
    return exact


@pytest.fixture
def whole_decode(monkeypatch):
    """The reference decodes whole images, so ours must not use the DCT scaling of JPEG here."""
    monkeypatch.setattr(region_batches, "enough_pixels", lambda *_, **__: None)


def batch_of(folder):
    """A batch size that holds every image of the folder."""
    return len(list((folder / "images").iterdir()))


def only_batch(loader, image):
    """The one batch of the loader, cut to the boxes, crops or labels of one image."""
    (batch,) = list(loader)
    place = batch.keys.index(image["file_name"])
    counts = [len(boxes) for boxes in batch.boxes]
    rows = slice(sum(counts[:place]), sum(counts[: place + 1]))
    return batch.images[place], batch.boxes[place], rows, batch


@same_pillow
def test_golden_proposal_items(golden, monkeypatch, whole_decode):
    case, record, folder, normalised = data_of(golden)
    image_px, crop_px = case.meta["config"]["det_image_size"], case.meta["config"]["crop_size"]
    for item in item_numbers(case, "proposals"):
        image = record["images"][item]
        rows = case.tensor(f"out/proposals/item{item}/boxes")
        order = case.tensor(f"in/proposals/item{item}/order").tolist()
        valid = rows[:, 4] > 0
        # The reference shuffles first and leaves rows empty; ours drops what is too small first.
        areas = [a["bbox"][2] * a["bbox"][3] for a in annotations_of(record, image)]
        usable = [i for i, area in enumerate(areas) if 8**2 <= area <= 1024**2]
        kept = [usable.index(i) for i in order[: len(rows)] if i in usable]
        assert len(kept) == valid.sum()
        if not kept:
            continue  # the image is left out
        drawn = {len(usable): kept}
        monkeypatch.setattr(
            region_batches, "draw_order", lambda rng, n, drawn=drawn: drawn.get(n, range(n))
        )
        loader = CropLoader(
            folder / "images",
            batch_size=batch_of(folder),
            image_px=image_px,
            crop_px=crop_px,
            boxes=folder / "instances.json",
            max_cells=len(rows),
        )
        _, boxes, place, batch = only_batch(loader, image)
        extent = torch.tensor([image["width"], image["height"]] * 2) / max(
            image["width"], image["height"]
        )
        expected = rows[valid][:, :4].clamp(min=0).minimum(extent)  # ours are clipped to the image
        torch.testing.assert_close(boxes, expected, atol=1e-6, rtol=0)
        picture = load_rgb(folder / "images" / image["file_name"])
        windows = case.arrays[f"out/proposals/item{item}/crop_windows"]
        size = image["height"], image["width"]
        stored = [annotations_of(record, image)[usable[i]]["bbox"] for i in kept]
        own = [crop_window((x, y, x + w, y + h), size, 1.5) for x, y, w, h in stored]
        np.testing.assert_allclose(own, windows, atol=1e-9)
        crops = case.tensor(f"out/proposals/item{item}/crops")
        crops = crops[valid[: len(crops)]]
        exact = check_crops(picture, own, crops, normalised)
        assert (batch.crops[place].int() - exact.int()).abs().max() <= GREY


@same_pillow
def test_golden_grid_items(golden, monkeypatch, whole_decode):
    case, record, folder, normalised = data_of(golden)
    image_px, crop_px = case.meta["config"]["det_image_size"], case.meta["config"]["crop_size"]
    assert len(case.meta["grid"]) == len(item_numbers(case, "grid"))
    for item, settings in enumerate(case.meta["grid"]):
        image = record["images"][settings["image_index"]]
        size = image["height"], image["width"]
        cells = grid_boxes(*case.tensor(f"in/grid/case{item}/choice").tolist())
        cells = cells[case.tensor(f"in/grid/case{item}/order")]
        monkeypatch.setattr(region_batches, "draw_cells", lambda *_, cells=cells: cells)
        loader = CropLoader(
            folder / "images", batch_size=batch_of(folder), image_px=image_px, crop_px=crop_px
        )
        _, boxes, place, batch = only_batch(loader, image)
        rows = case.tensor(f"out/grid/case{item}/boxes")
        torch.testing.assert_close(boxes, rows[rows[:, 4] > 0][:, :4], atol=1e-6, rtol=0)
        in_pixels = (cells * torch.tensor([size[1], size[0]] * 2)).tolist()
        windows = [crop_window(cell, size, settings["crop_scale"]) for cell in in_pixels]
        np.testing.assert_allclose(
            windows, case.arrays[f"out/grid/case{item}/crop_windows"], atol=2e-5
        )
        picture = load_rgb(folder / "images" / image["file_name"])
        exact = check_crops(picture, windows, case.tensor(f"out/grid/case{item}/crops"), normalised)
        if settings["crop_scale"] == 1:
            assert (batch.crops[place].int() - exact.int()).abs().max() <= GREY


def test_golden_labelled_items(golden, whole_decode):
    case, record, folder, _ = data_of(golden)
    for item in item_numbers(case, "regionclip"):
        image = record["images"][item]
        rows = case.tensor(f"out/regionclip/item{item}/boxes")
        rows = rows[rows[:, 5] > 0]
        loader = BoxLoader(
            folder / "images",
            batch_size=batch_of(folder),
            image_px=case.meta["config"]["det_image_size"],
            boxes=folder / "instances.json",
            max_boxes=case.meta["regionclip_max_anns"],
            crowd="keep",
        )
        assert loader.class_names == [
            c["name"] for c in sorted(record["categories"], key=lambda c: c["id"])
        ]
        picture, boxes, place, batch = only_batch(loader, image)
        extent = torch.tensor([image["width"], image["height"]] * 2) / max(
            image["width"], image["height"]
        )
        torch.testing.assert_close(
            boxes, rows[:, :4].clamp(min=0).minimum(extent), atol=1e-6, rtol=0
        )
        assert batch.labels[place].tolist() == rows[:, 4].tolist()
        exact = T.letterbox(load_rgb(folder / "images" / image["file_name"]), picture.shape[-1])
        assert (picture.int() - exact.int()).abs().max() <= GREY


def test_drawn_cells_are_distinct_cells_of_one_grid():
    seen = set()
    for seed in range(300):
        cells = draw_cells(random.Random(seed), 6, 20)
        sizes = (cells[:, 2:] - cells[:, :2]).round(decimals=5)
        assert len(sizes.unique(dim=0)) == 1
        columns, rows = (1 / sizes[0]).round().int().tolist()
        assert len(cells) == len(cells.unique(dim=0)) == min(20, rows * columns)
        seen.add((rows, columns))
    assert seen == set(grid_choices(6))
    orders = {tuple(draw_order(random.Random(seed), 4)) for seed in range(400)}
    assert len(orders) == 24


def test_image_is_decoded_smaller_only_if_nothing_needs_more():
    size = (1000, 2000)
    assert enough_pixels(size, [], image_px=500, crop_px=100) == (500, 250)
    assert enough_pixels(size, [], image_px=2000, crop_px=100) is None
    assert enough_pixels(size, [(0, 0, 200, 100)], image_px=500, crop_px=100) == (1000, 500)
    assert (
        enough_pixels(size, [(0, 0, 2000, 1000), (0, 0, 50, 99)], image_px=500, crop_px=100) is None
    )
    assert enough_pixels(size, [(5.2, 5.2, 5.3, 5.3)], image_px=500, crop_px=100) is None


@pytest.mark.parametrize("window", [(0, 0, 0.2, 0.2), (39.9, 29.9, 40, 30), (0, 0, 40, 0.1)])
def test_crops_of_less_than_a_pixel_are_one_pixel(images, window):
    picture = torch.from_numpy(images.pixels(1, 30, 40)).permute(2, 0, 1)
    (crop,) = cut_crops(picture, [window], 8)
    row, column = (29, 39) if window[0] > 30 else (0, 0)
    assert crop.amax(dim=(1, 2)).ge(picture[:, row, column]).all()
    assert crop.any()


def test_no_windows_are_no_crops(images):
    assert cut_crops(torch.from_numpy(images.pixels(1, 30, 40)).permute(2, 0, 1), [], 8).shape == (
        0,
        3,
        8,
        8,
    )

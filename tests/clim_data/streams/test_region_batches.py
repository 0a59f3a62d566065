import json

import numpy as np
import pytest
import torch
from clim_data import MULTI_SCALES, BoxLoader, CropLoader
from clim_data.pixels.crops import crop_window
from PIL import Image

SMALL = {"image_px": 32, "crop_px": 16}


@pytest.fixture
def photos(tmp_path, images, write_json):
    """(folder of eleven jpegs of several sizes and one png, COCO json with boxes for all of
    them)."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    records, annotations = [], []
    for i in range(12):
        height, width = 40 + 3 * i, 70 - 2 * i
        name = f"more/{i:02d}.jpg" if i % 3 == 0 else f"{i:02d}.png" if i == 7 else f"{i:02d}.jpg"
        kind = "PNG" if name.endswith("png") else "JPEG"
        (folder / name).write_bytes(images.encoded(images.pixels(i, height, width), kind))
        records.append({"id": 100 + i, "file_name": name, "height": height, "width": width})
        for k in range(1 + i % 4):
            box = [2 + k, 3 + k, 20 + i, 12 + k]
            annotations.append(
                {"id": len(annotations), "image_id": 100 + i, "category_id": 5 + k % 2, "bbox": box}
            )
    categories = [{"id": 6, "name": "second"}, {"id": 5, "name": "first"}]
    return folder, write_json("boxes.json", records, annotations, categories)


def shards_of(folder, boxes, tar, tmp_path):
    """The same images in two shards, keyed as `clim-data pack` does, without any text."""
    names = [image["file_name"] for image in json.loads(boxes.read_text())["images"]]
    members = [(name.rpartition("/")[2], (folder / name).read_bytes()) for name in names]
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "a.tar", members[:5])
    tar(tmp_path / "shards" / "b.tar", members[5:])
    return tmp_path / "shards"


def loaders(photos, kind, **options):
    folder, boxes = photos
    if kind == "boxes":
        return BoxLoader(options.pop("sources", folder), image_px=32, boxes=boxes, **options)
    extra = {"boxes": boxes} if kind == "proposals" else {}
    return CropLoader(options.pop("sources", folder), **SMALL, **extra, **options)


def same(a, b):
    beside = ("crops",) if hasattr(a, "crops") else ("labels",)
    equal = all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("images", *beside))
    return (
        equal
        and a.keys == b.keys
        and all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))
    )


KINDS = ("grid", "proposals", "boxes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_batches_have_the_documented_fields(photos, tar, tmp_path, kind, packed):
    options = {"sources": shards_of(*photos, tar, tmp_path)} if packed else {}
    loader = loaders(photos, kind, batch_size=5, **options)
    keys = []
    for batch in loader:
        keys += batch.keys
        n = sum(len(boxes) for boxes in batch.boxes)
        assert len(batch) == len(batch.keys) == len(batch.boxes) == len(batch.images)
        assert batch.images.shape[1:] == (3, 32, 32)
        assert batch.images.dtype == torch.uint8
        for boxes in batch.boxes:
            assert boxes.dtype == torch.float32
            assert boxes.shape[1] == 4
            assert 1 <= len(boxes) <= 20
            assert (boxes >= 0).all()
            assert (boxes <= 1).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
        if kind == "boxes":
            assert batch.labels.shape == (n,)
            assert batch.labels.dtype == torch.int64
        else:
            assert batch.crops.shape == (n, 3, 16, 16)
            assert batch.crops.dtype == torch.uint8
        assert same(batch.to("cpu"), batch)
    names = [image["file_name"] for image in json.loads(photos[1].read_text())["images"]]
    expected = [name.rpartition("/")[2].partition(".")[0] if packed else name for name in names]
    assert sorted(keys) == sorted(expected)
    assert len(loader) == 3
    assert loader.skipped.total == 0
    if kind == "boxes":
        assert loader.class_names == ["first", "second"]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_every_epoch_and_workers_change_nothing(photos, kind):
    seen, lengths = [], set()
    for rank in range(2):
        options = {"batch_size": 2, "rank": rank, "world_size": 2, "seed": 4}
        loader = loaders(photos, kind, **options)
        plain = [batch for _ in range(2) for batch in loader]
        lengths.add((len(loader), len(plain)))
        seen += [key for batch in plain[: len(loader)] for key in batch.keys]
        if rank:
            workers = loaders(photos, kind, workers=2, **options)
            streamed = [batch for _ in range(2) for batch in workers]
            assert all(same(a, b) for a, b in zip(plain, streamed, strict=True))
    assert lengths == {(3, 6)}
    assert len(seen) == len(set(seen)) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_stream_equals_the_uninterrupted_one(photos, kind):
    options = {"batch_size": 3, "scales": (16, 32)} if kind != "boxes" else {"batch_size": 3}
    whole = loaders(photos, kind, **options)
    expected = [batch for _ in range(2) for batch in whole]
    first = loaders(photos, kind, **options)
    taken = []
    for batch in first:
        taken.append(batch)
        if len(taken) == 3:
            break
    second = loaders(photos, kind, **options)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    while len(taken) < len(expected):
        taken += list(second)
    assert all(same(a, b) for a, b in zip(taken, expected, strict=True))
    with pytest.raises(ValueError, match="fingerprint"):
        loaders(photos, "grid" if kind != "grid" else "boxes", batch_size=3).load_state_dict(
            first.state_dict()
        )


def test_grids_change_with_epoch_and_seed_and_follow_the_sample(photos):
    def grids(loader):
        return {key: boxes for batch in loader for key, boxes in zip(batch.keys, batch.boxes)}

    loader = loaders(photos, "grid", batch_size=5)
    first, second = grids(loader), grids(loader)
    other = grids(loaders(photos, "grid", batch_size=5, seed=1))
    alone = grids(loaders(photos, "grid", batch_size=1))
    assert all(torch.equal(first[key], alone[key]) for key in first)
    for changed in (second, other):
        assert (
            sum(
                first[k].shape == changed[k].shape and torch.equal(first[k], changed[k])
                for k in first
            )
            < 4
        )


def test_crops_show_the_regions_of_their_boxes(tmp_path, write_json):
    """Cells of a picture of four colours: each crop has the colour of its box, images keep their
    place."""
    folder = tmp_path / "flags"
    folder.mkdir()
    colours = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], dtype=np.uint8)
    for i in range(6):
        flag = np.repeat(np.repeat(np.roll(colours, i, axis=1), 24, axis=0), 36, axis=1)
        Image.fromarray(flag).save(folder / f"{i}.png")
    loader = CropLoader(folder, batch_size=3, image_px=72, crop_px=12, max_split=6)
    for batch in loader:
        crops = iter(batch.crops)
        for image, boxes in zip(batch.images, batch.boxes):
            assert image[:, 48:].eq(0).all()
            for box, crop in zip((boxes * 72).round().int().tolist(), crops):
                x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
                if x in range(33, 40) or y in range(21, 28):
                    continue  # the cell lies on several colours
                middle = crop[:, 5:7, 5:7].float().mean(dim=(1, 2))
                assert (middle - image[:, y, x].float()).abs().max() < 40
        assert next(crops, None) is None


def test_proposals_are_drawn_filtered_and_enlarged(tmp_path, images, write_json):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = images.pixels(3, 200, 300)
    (folder / "a.png").write_bytes(images.encoded(picture, "PNG"))
    boxes = [[5 * i, 4 * i, 20, 30] for i in range(30)] + [[3, 3, 7, 9], [0, 0, 300, 190]]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
    ]
    path = write_json(
        "p.json", [{"id": 1, "file_name": "a.png", "height": 200, "width": 300}], annotations
    )
    loader = CropLoader(
        folder, batch_size=1, image_px=300, crop_px=30, boxes=path, area_px=(8, 200)
    )
    legal = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes[:30]], dtype=torch.float32)
    draws = []
    for _ in range(2):
        (batch,) = list(loader)
        drawn = (batch.boxes[0] * 300).round()
        assert len(drawn) == 20
        assert len(drawn.unique(dim=0)) == 20
        assert ((drawn[:, None] == legal).all(-1)).any(1).all()
        for box, crop in zip(drawn.tolist(), batch.crops):
            left, top, right, bottom = (round(v) for v in crop_window(box, (200, 300), 1.5))
            window = Image.fromarray(picture[top:bottom, left:right])
            size = (30 * window.width / max(window.size), 30 * window.height / max(window.size))
            expected = np.array(
                window.resize((round(size[0]), round(size[1])), Image.Resampling.BICUBIC)
            )
            y, x = (30 - expected.shape[0]) // 2, (30 - expected.shape[1]) // 2
            cut = crop[:, y : y + expected.shape[0], x : x + expected.shape[1]].permute(1, 2, 0)
            assert (cut.int() - torch.from_numpy(expected).int()).abs().max() <= 2
        draws.append(drawn)
    assert not torch.equal(*draws)
    tight = CropLoader(
        folder, batch_size=1, image_px=300, crop_px=30, boxes=path, max_cells=40, context=1
    )
    (batch,) = list(tight)
    assert len(batch.boxes[0]) == 31


def test_one_scale_for_all_ranks_of_a_step(photos):
    sizes = []
    for rank in range(2):
        loader = loaders(photos, "grid", batch_size=1, scales=(16, 32, 48), rank=rank, world_size=2)
        sizes.append([batch.images.shape[-1] for _ in range(4) for batch in loader])
        assert all(batch.crops.shape[-1] == 16 for batch in loader)
    assert sizes[0] == sizes[1]
    assert set(sizes[0]) == {16, 32, 48}
    assert sizes[0][:6] != sizes[0][6:12]


def test_scales_of_the_recipes():
    assert MULTI_SCALES == {1024: (320, 640, 896, 1024), 896: (336, 448, 672, 896)}


def test_grids_of_the_images_of_a_json(photos):
    folder, boxes = photos
    record = json.loads(boxes.read_text())
    boxes.write_text(json.dumps({"images": record["images"][:4]}))
    loader = CropLoader(folder, batch_size=9, **SMALL, images_json=boxes)
    (batch,) = list(loader)
    assert sorted(batch.keys) == sorted(image["file_name"] for image in record["images"][:4])
    assert loader.fingerprint() != CropLoader(folder, batch_size=9, **SMALL).fingerprint()


def test_jpegs_are_decoded_small_when_that_is_enough(tmp_path, images):
    folder = tmp_path / "large"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(images.encoded(images.pixels(i, 480, 640), quality=95))
        Image.open(folder / f"{i}.jpg").save(folder / f"{i}_whole.png")
    loader = CropLoader(folder, batch_size=1, image_px=64, crop_px=16, max_split=2, shuffle=False)
    batches = {batch.keys[0]: batch for batch in loader}
    for i in range(3):
        small, whole = batches[f"{i}.jpg"].images.int(), batches[f"{i}_whole.png"].images.int()
        assert not torch.equal(small, whole)
        assert (small - whole).abs().float().mean() < 5


@pytest.mark.parametrize("background", ["white", "random"])
def test_transparent_images_are_laid_on_a_background(tmp_path, background):
    folder = tmp_path / "clear"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.zeros((8, 8, 4), dtype=np.uint8)).save(folder / f"{i}.png")
    (batch,) = list(CropLoader(folder, batch_size=3, image_px=8, crop_px=4, background=background))
    colours = {tuple(image[:, 0, 0].tolist()) for image in batch.images}
    assert (colours == {(255, 255, 255)}) if background == "white" else len(colours) == 3
    counts = [len(boxes) for boxes in batch.boxes]
    for image, crops in zip(batch.images, batch.crops.split(counts)):
        # A crop has the colour of its image, and zeros where it is padded.
        shown = crops.permute(0, 2, 3, 1).reshape(-1, 3)
        assert (shown.eq(image[:, 0, 0]).all(1) | shown.eq(0).all(1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_px": 0}, "image_px=0 must be a whole number of at least 1"),
        ({"crop_px": 2.5}, "crop_px=2.5"),
        ({"max_split": 0}, "max_split=0"),
        ({"max_cells": 0}, "max_cells=0"),
        ({"context": 0.9}, "context=0.9 must be at least 1"),
        ({"scales": (16, 64)}, r"image_px=32 is not one of scales=\(16, 64\)"),
        ({"scales": (32, 0)}, "scales=0"),
        ({"area_px": (9, 3)}, r"area_px=\(9, 3\)"),
        ({"boxes": "a.json", "images_json": "b.json"}, "give one of them"),
        ({"background": "pink"}, "background='pink'"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"rank": 1}, "rank=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"on_error": "no"}, "on_error='no'"),
    ],
)
def test_bad_options_are_rejected(photos, options, message):
    with pytest.raises(ValueError, match=message):
        CropLoader(photos[0], **{"batch_size": 2, **SMALL, **options})


@pytest.mark.parametrize(
    "options", [{"max_boxes": 0}, {"crowd": "some"}, {"area_px": (1,)}, {"cache_shards": 0}]
)
def test_bad_options_of_labelled_boxes_are_rejected(photos, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BoxLoader(photos[0], **{"batch_size": 2, "image_px": 32, "boxes": photos[1], **options})

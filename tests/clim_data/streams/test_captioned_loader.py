"""Images with boxes, pictures with captions, and mosaics in one stream."""

import json

import numpy as np
import pytest
import torch
from clim_data.processes import Ranks
from clim_data.streams import StreamOptions
from clim_data.streams.captioned_loader import CaptionedDetectionLoader, CaptionSource
from clim_data.streams.detection_batches import DetectionLoader
from PIL import Image

CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten pictures, each of one grey level, with a box, a caption and a tag."""
    folder = tmp_path_factory.mktemp("photos")
    images, boxes, tagged = [], [], []
    for i in range(10):
        size = (60, 40) if i % 2 else (40, 60)
        Image.new("RGB", size, (20 * i,) * 3).save(folder / f"{i}.png")
        image = {"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]}
        images.append(image)
        box = {"id": i, "image_id": i, "category_id": 4, "bbox": [4, 4, 20, 20], "area": 400}
        boxes.append({**box, "iscrowd": 0})
        captions = [f"a thing {i}", f"thing number {i}"]
        tagged.append({**image, "captions": captions, "pos_category_ids": [9] if i < 5 else [4]})
    contents = {"images": images, "annotations": boxes, "categories": CATEGORIES}
    (folder / "boxes.json").write_text(json.dumps(contents))
    contents = {"images": tagged, "categories": CATEGORIES}
    (folder / "tags.json").write_text(json.dumps(contents))
    return folder


def loader_of(photos, *, crops=False, batch=2, ranks=None, captions=True, workers=0, **options):
    stream = StreamOptions(batch_size=batch, seed=5, ranks=ranks or Ranks(), workers=workers)
    boxes = photos / "boxes.json"
    detection = DetectionLoader([str(photos)], image_px=32, boxes=boxes, stream=stream)
    source = None
    if captions:
        rules = {"pictures": 2, "mosaics": 1, **options}
        file = rules.pop("file", photos / "tags.json")
        source = CaptionSource(sources=[str(photos)], captions=file, **rules)
    return CaptionedDetectionLoader(
        detection, image_px=32, crops=crops, captions=source, stream=stream
    )


def same(first, second):
    for name in ("boxes", "captions", "mosaics"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.keys == other.keys
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.windows, other.windows)
    assert first.mosaics.captions == second.mosaics.captions


@pytest.mark.parametrize("crops", [False, True])
def test_a_step_has_its_numbers_and_tiles_show_their_pictures(photos, crops):
    loader = loader_of(photos, crops=crops)
    assert len(loader) == 5
    assert loader.class_names == ["cat", "dog"]
    batches = list(loader)
    assert loader.epoch == 1
    for batch in batches:
        assert (len(batch.boxes), len(batch.captions), len(batch.mosaics)) == (2, 4, 2)
        for part in (batch.captions, batch.mosaics):
            tiles = [len(boxes) for boxes in part.tiles]
            assert [len(one) for one in part.numbers] == tiles
            assert len(part.captions) == sum(tiles)
            assert part.images.shape[2] % 32 == part.images.shape[3] % 32 == 0
            numbers = torch.cat(part.numbers).tolist()
            assert all(str(n) in text for n, text in zip(numbers, part.captions, strict=True))
            for tags, rows in zip(part.tags, part.numbers, strict=True):
                assert tags.tolist() == [[n >= 5, n < 5] for n in rows.tolist()]
            for image, boxes, rows in zip(part.images, part.tiles, part.numbers, strict=True):
                for (left, top, right, bottom), number in zip(
                    boxes.tolist(), rows.tolist(), strict=True
                ):
                    middle = image[:, int((top + bottom) / 2), int((left + right) / 2)]
                    assert middle.tolist() == [20 * number] * 3
        assert all(len(boxes) in (4, 9, 16) for boxes in batch.mosaics.tiles)
        if not crops:
            assert min(batch.boxes.windows[0, 2:]) == 32


def test_boxes_move_with_their_whole_pictures(photos):
    batch = next(iter(loader_of(photos, captions=False)))
    assert batch.captions is None
    assert batch.mosaics is None
    for window, box in zip(batch.boxes.windows.tolist(), batch.boxes.boxes, strict=True):
        scale = 32 / 40
        left, right = 4 * scale, 24 * scale
        mirrored = [window[2] - right, left, window[2] - left, right]
        expected = [left, left, right, right]
        assert np.allclose(box[0], expected, atol=1e-4) or np.allclose(box[0], mirrored, atol=1e-4)


def test_workers_and_resuming_change_nothing(photos):
    whole = list(loader_of(photos, workers=1))
    loader = loader_of(photos)
    start = [batch for batch, _ in zip(loader, range(2), strict=False)]
    state = json.loads(json.dumps(loader_of_state(loader)))
    rest = loader_of(photos)
    rest.load_state_dict(state)
    for expected, found in zip(whole, [*start, *rest], strict=True):
        same(expected, found)
    assert rest.state_dict()["epoch"] == 1

    other = loader_of(photos, pool=3)
    with pytest.raises(ValueError, match="fingerprint"):
        other.load_state_dict(state)


def loader_of_state(loader):
    """The state after two batches: the third was drawn by zip, but not given out."""
    state = loader.state_dict()
    assert state["step"] in (2, 3)
    fresh = state["step"] == 2
    return state if fresh else {**state, "step": 2, "position": 4, "drawn": before_last(loader)}


def before_last(loader):
    drawn = loader.mixture.start()
    for group in loader.mixture.groups(2).tolist():
        drawn = loader.mixture.after(drawn, group, 1)
    return drawn


def test_ranks_share_the_images_of_a_step(photos):
    alone = next(iter(loader_of(photos, batch=2)))
    halves = [next(iter(loader_of(photos, batch=1, ranks=Ranks(rank, 2)))) for rank in (0, 1)]
    for name in ("boxes", "captions", "mosaics"):
        keys = [key for half in halves for key in getattr(half, name).keys]
        assert sorted(keys) == sorted(getattr(alone, name).keys)


def test_another_number_of_ranks_goes_on_with_the_images_that_are_left(photos):
    first = loader_of(photos, batch=1, ranks=Ranks(0, 2))
    images = 2 * len(first)
    next(iter(first))
    rest = loader_of(photos, batch=1)
    rest.load_state_dict(first.state_dict())
    assert len(list(rest)) == images - 2
    assert rest.state_dict()["epoch"] == 1


def test_a_broken_picture_is_named_and_its_mosaic_takes_another(photos, tmp_path):
    for path in photos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "3.png").write_bytes(b"no image")
    loader = loader_of(tmp_path, batch=3)
    for batch in loader:
        for rows in batch.mosaics.numbers:
            assert 3 not in rows.tolist()
            assert len(rows) in (4, 9, 16)
    assert [fault.name.split("/")[-1] for fault in loader.skipped.faults] == ["3.png"]


def test_files_without_tags_and_foreign_tags_are_refused(photos, tmp_path):
    record = json.loads((photos / "tags.json").read_text())
    plain = {"images": [{**one} for one in record["images"]]}
    for one in plain["images"]:
        del one["pos_category_ids"]
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"has no tags .*clim-data tags"):
        loader_of(photos, file=tmp_path / "plain.json")
    batch = next(iter(loader_of(photos, file=tmp_path / "plain.json", tags=False)))
    assert not batch.mosaics.tags[0].any()

    record["categories"][0]["name"] = "wolf"
    (tmp_path / "wolf.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"tags of \['wolf'\]"):
        loader_of(photos, file=tmp_path / "wolf.json")
    with pytest.raises(ValueError, match="pictures=0 and mosaics=0"):
        loader_of(photos, pictures=0, mosaics=0)

"""Batches for detectors: views of images with boxes in pixels, reproducible and resumable."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clim_data import DetectionLoader
from clim_data.pixels.decode import decode_rgb
from clim_data.pixels.jitter import JitterDraw, jitter
from clim_data.pixels.mask_windows import MaskWindow
from clim_data.pixels.segmentations import decode_segmentation
from clim_data.processes.ranks import Ranks
from clim_data.streams.detection_batches import ViewRules
from clim_data.streams.draw import SampleRandom
from clim_data.streams.options import StreamOptions
from PIL import Image

NAMES = ["cat", "dog", "cup"]


@pytest.fixture
def photos(tmp_path, write_json):
    folder = tmp_path / "photos"
    folder.mkdir()
    images, boxes = [], []
    for i in range(8):
        width, height = (20, 60) if i == 7 else (60 + i, 50)
        picture = Image.effect_noise((width, height), 90).convert("RGB")
        picture.save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        boxes.append([i, [5, 6, 12, 30], 1 + i % 3])
        boxes.append([i, [20, 2, 30, 0.5], 1])
    annotations = []
    for n, (image, box, category) in enumerate(boxes):
        x, y, width, height = box
        corner = [x, y, x + width, y, x, y + height]
        own = {"id": n, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0}
        annotations.append({**own, "segmentation": [corner]})
    categories = [
        {"id": 1 + i, "name": name, "frequency": "fcr"[i]} for i, name in enumerate(NAMES)
    ]
    return folder, write_json("boxes.json", images, annotations, categories)


def loader(photos, **options):
    folder, boxes = photos
    fields = ViewRules.__dataclass_fields__
    rules = ViewRules(**{name: options.pop(name) for name in fields if name in options})
    stream = StreamOptions(batch_size=options.pop("batch_size", 2), **options)
    return DetectionLoader(folder, image_px=48, boxes=boxes, rules=rules, stream=stream)


def rewritten(photos, change):
    """The data with another json."""
    folder, boxes = photos
    record = json.loads(Path(boxes).read_text())
    change(record)
    path = folder.parent / "changed.json"
    path.write_text(json.dumps(record))
    return folder, path


def same(first, second):
    assert first.keys == second.keys
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.windows, second.windows)
    for name in ("boxes", "labels"):
        pairs = zip(getattr(first, name), getattr(second, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_batches_are_views_of_their_images(photos):
    batches = loader(photos, seed=5)
    assert batches.class_names == NAMES
    samples = [batches._batches.store.read(i) for i in range(batches.num_samples)]
    names = {sample.key: sample.name for sample in samples}
    found = []
    for batch in batches:
        for i, key in enumerate(batch.keys):
            number = int(Path(key).stem)
            picture = decode_rgb(photos[0] / f"{number}.png")
            chosen = JitterDraw.of(SampleRandom(5, 0).rng(names[key], "jitter"))
            view = jitter(picture, torch.tensor([[5.0, 6, 17, 36]]), chosen, 48)
            assert torch.equal(batch.images[i], view.image)
            assert tuple(batch.windows[i].tolist()) == view.window
            torch.testing.assert_close(batch.boxes[i], view.boxes)
            assert batch.labels[i].tolist() == [number % 3] * len(view.boxes)
            found.append(number)
    # The narrow image is skipped and named; boxes thinner than a pixel are not there.
    assert sorted(found) == list(range(7))
    assert "small image" in batches.skipped.summary()


def test_ranks_share_an_epoch_and_workers_change_nothing(photos):
    plain = list(loader(photos))
    for a, b in zip(plain, loader(photos, workers=1), strict=True):
        same(a, b)
    halves = [list(loader(photos, ranks=Ranks(rank, 2), batch_size=1)) for rank in (0, 1)]
    keys = [key for half in halves for batch in half for key in batch.keys]
    assert sorted(keys) == sorted(key for batch in plain for key in batch.keys)


def test_resumed_stream_equals_the_uninterrupted_one(photos):
    whole = loader(photos)
    expected = [batch for _ in range(2) for batch in whole]
    first = loader(photos)
    iterator = iter(first)
    next(iterator)
    state = first.state_dict()
    again = loader(photos)
    again.load_state_dict(state)
    rest = [batch for _ in range(2) for batch in again]
    for a, b in zip(expected[1:], rest, strict=True):
        same(a, b)
    epochs = [b for b in expected if "0" in "".join(b.keys)]
    assert len(epochs) == 2

    with pytest.raises(ValueError, match="resume with"):
        loader(photos, flip_padding=True).load_state_dict(state)


def test_only_some_classes(photos):
    some = loader(photos, classes=["dog"])
    labels = torch.cat([label for batch in some for label in batch.labels])
    assert set(labels.tolist()) <= {1}
    assert some.num_samples == 2
    assert some.fingerprint() != loader(photos).fingerprint()


@pytest.mark.parametrize(
    ("classes", "message"),
    [("dog", r"pass a list, such as \['dog'\]"), (["bird"], "spell names as the file does")],
)
def test_wrong_classes_are_refused(photos, classes, message):
    with pytest.raises(ValueError, match=message):
        loader(photos, classes=classes)


def test_masks_are_the_pixels_inside_their_boxes(photos):
    batches = loader(photos, masks=True, seed=5)
    names = {}
    for i in range(batches.num_samples):
        sample = batches._batches.store.read(i)
        names[sample.key] = sample.name
    compared = 0
    for batch in batches:
        for key, boxes, pixels in zip(batch.keys, batch.boxes, batch.masks, strict=True):
            number = int(Path(key).stem)
            polygon = [[5, 6, 17, 6, 5, 36]]
            mask = decode_segmentation(polygon, 50, 60 + number)
            picture = decode_rgb(photos[0] / f"{number}.png")
            chosen = JitterDraw.of(SampleRandom(5, 0).rng(names[key], "jitter"))
            whole = [MaskWindow(0, 0, mask)]
            given = torch.tensor([[5.0, 6, 17, 36]])
            view = jitter(picture, given, chosen, 48, masks=whole)
            assert torch.equal(boxes, view.boxes)
            expected = [one.pixels.ravel() for one in view.masks]
            assert pixels.tolist() == np.concatenate([[], *expected]).astype(bool).tolist()
            compared += len(boxes)
    assert compared > 3
    assert batches.fingerprint() != loader(photos).fingerprint()


def test_boxes_without_a_mask_are_named_and_files_without_any_refused(photos):
    def spoil(record):
        record["annotations"][0]["segmentation"] = []
        del record["annotations"][2]["segmentation"]
        # A line has no pixel inside.
        record["annotations"][4]["segmentation"] = [[5, 6, 17, 6, 11, 6]]

    some = loader(rewritten(photos, spoil), masks=True)
    assert some.skipped.counts["empty segmentation"] == 3
    assert some.skipped.counts["no usable box"] == 3
    assert some.num_samples == 4
    assert loader(rewritten(photos, spoil)).num_samples == 7

    def strip(record):
        for annotation in record["annotations"]:
            annotation.pop("segmentation")

    with pytest.raises(ValueError, match="give a file with masks, or train a detector without"):
        loader(rewritten(photos, strip), masks=True)


def test_frequencies_of_lvis_choose_classes(photos):
    some = loader(photos, frequencies=("f", "c"))
    assert some.trained_names == ["cat", "dog"]
    assert some.class_names == NAMES
    assert some.image_counts == [3, 2, 0]
    both = loader(photos, frequencies=("f", "c"), classes=["dog", "cup"])
    assert both.trained_names == ["dog"]

    with pytest.raises(ValueError, match="no class is left"):
        loader(photos, frequencies=("r",), classes=["cat"])

    def drop(record):
        del record["categories"][0]["frequency"]

    with pytest.raises(ValueError, match="have no frequency: give a file of LVIS"):
        loader(rewritten(photos, drop), frequencies=("f",))

    def misspell(record):
        record["categories"][0]["frequency"] = "often"

    with pytest.raises(ValueError, match="frequency 'often'"):
        loader(rewritten(photos, misspell))


def test_categories_in_another_order_keep_their_names(photos):
    def shuffle(record):
        # Other ids and another order, as in a file of 80 categories for a detector of 65.
        for category in record["categories"]:
            category["id"] = 90 - category["id"]
        for annotation in record["annotations"]:
            annotation["category_id"] = 90 - annotation["category_id"]

    def named(batches):
        return {
            key: [batches.class_names[label] for label in labels]
            for batch in batches
            for key, labels in zip(batch.keys, batch.labels, strict=True)
        }

    other = loader(rewritten(photos, shuffle))
    assert other.class_names == NAMES[::-1]
    assert named(other) == named(loader(photos))


def test_images_with_rare_classes_come_several_times_in_other_views(photos):
    def spread(record):
        for annotation in record["annotations"]:
            annotation["category_id"] = 1
        record["annotations"][0]["category_id"] = 3

    # One of seven images has class 3: sqrt(0.8 * 7) = 2.4, rounded up.
    data = rewritten(photos, spread)
    batches = loader(data, repeat_below=0.8, batch_size=3)
    assert batches.num_samples == 9
    views = {}
    for batch in batches:
        for key, image in zip(batch.keys, batch.images, strict=True):
            views.setdefault(key, []).append(image)
    assert {key: len(images) for key, images in views.items()} == {
        f"{i}.png": 3 if i == 0 else 1 for i in range(7)
    }
    first, second, third = views["0.png"]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)

    iterator = iter(whole := loader(data, repeat_below=0.8, batch_size=3))
    next(iterator)
    again = loader(data, repeat_below=0.8, batch_size=3)
    again.load_state_dict(whole.state_dict())
    for a, b in zip(iterator, again, strict=True):
        same(a, b)
    with pytest.raises(ValueError, match="resume with"):
        loader(data).load_state_dict(whole.state_dict())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"classes": []}, "no class to train"),
        ({"frequencies": "x"}, "are not known"),
        ({"repeat_below": 0.0}, "a share of the images"),
    ],
)
def test_wrong_rules_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        ViewRules(**rules)

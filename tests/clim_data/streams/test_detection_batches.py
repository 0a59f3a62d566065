"""Batches for detectors: views of images with boxes in pixels, reproducible and resumable."""

from pathlib import Path

import pytest
import torch
from clim_data import DetectionLoader
from clim_data.pixels.decode import decode_rgb
from clim_data.pixels.jitter import JitterDraw, jitter
from clim_data.processes.ranks import Ranks
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
    annotations = [
        {"id": n, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0}
        for n, (image, box, category) in enumerate(boxes)
    ]
    categories = [{"id": 1 + i, "name": name} for i, name in enumerate(NAMES)]
    return folder, write_json("boxes.json", images, annotations, categories)


def loader(photos, **options):
    folder, boxes = photos
    own = {name: options.pop(name) for name in ("classes", "flip_padding") if name in options}
    stream = StreamOptions(batch_size=options.pop("batch_size", 2), **options)
    return DetectionLoader(folder, image_px=48, boxes=boxes, stream=stream, **own)


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

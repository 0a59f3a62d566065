import io
import json

import numpy as np
import pytest
import torch
from clim_data import MosaicConfig, MosaicLoader
from clim_data.faults import BrokenSample
from clim_data.pixels.decode import decode_rgb, to_rgb
from clim_data.pixels.transforms import crop_resize, sample_crop_window
from clim_data.sources.captions import read_captions
from clim_data.sources.shards import RawSample
from clim_data.streams.draw import SampleRandom
from clim_data.streams.mosaic_batches import build_batch, decode_tile
from PIL import Image


def raw(image=b"", text=None, meta=None, name="s.tar/k"):
    return RawSample(name, name.rpartition("/")[2], image, text, meta)


@pytest.mark.parametrize(
    ("text", "meta", "captions"),
    [
        (None, {"captions": ["a", " b ", ""]}, ["a", "b"]),
        (b"from txt", {"caption": "from json"}, ["from txt"]),
        (b"from txt", {"captions": ["from json"]}, ["from json"]),
        (None, {"caption": "only json"}, ["only json"]),
        ("é".encode(), None, ["é"]),
    ],
)
def test_captions_of_our_and_of_img2dataset_shards(text, meta, captions):
    assert (
        read_captions(raw(text=text, meta=json.dumps(meta).encode() if meta else None)) == captions
    )


@pytest.mark.parametrize(
    ("text", "meta", "reason"),
    [
        (b"  \n", None, "empty caption"),
        (None, b'{"captions": []}', "empty caption"),
        (None, b'{"captions": [null, 3]}', "bad caption"),
        (None, b'{"captions": {"text": "a"}}', "bad caption"),
        (None, b'{"caption": "\\ud83d"}', "bad caption"),
        (None, b'{"captions": [null]}', "empty caption"),
        (None, b'{"caption": null}', "empty caption"),
        (None, b"{}", "empty caption"),
        (b"fine", b'{"captions"', "bad json"),
        (b"fine", b"[1]", "bad json"),
        (b"fine", b"\xff\xfe{", "bad json"),
        (b"\xff\xff", None, "bad caption"),
    ],
)
def test_unusable_captions_are_told_apart(text, meta, reason):
    with pytest.raises(BrokenSample) as caught:
        read_captions(raw(text=text, meta=meta))
    assert caught.value.reason == reason


def test_tile_is_the_resized_crop_of_the_drawn_window(images):
    pixels = images.pixels(3, 60, 90)
    sample, draw, config = (
        raw(images.encoded(pixels, "PNG")),
        SampleRandom(5, 2),
        MosaicConfig(crop_scale=(0.3, 0.6)),
    )
    window = sample_crop_window((60, 90), draw.rng(sample.name, "crop"), scale=(0.3, 0.6))
    expected = crop_resize(torch.from_numpy(pixels).permute(2, 0, 1), window, (20, 31))
    assert torch.equal(decode_tile(sample, (20, 31), draw, config=config), expected)


def test_jpeg_scaling_decodes_fewer_pixels_but_never_too_few(images):
    data = images.encoded(images.pixels(3, 480, 640), quality=95)
    assert decode_rgb(data).shape == (3, 480, 640)
    assert decode_rgb(data, at_least=(160, 120)).shape == (3, 120, 160)
    assert decode_rgb(data, at_least=(161, 120)).shape == (3, 240, 320)
    assert decode_rgb(data, at_least=(1000, 1000)).shape == (3, 480, 640)
    config = MosaicConfig()
    scaled = decode_tile(raw(data), (60, 60), SampleRandom(0, 0), config=config)
    lossless = raw(images.encoded(np.asarray(Image.open(io.BytesIO(data))), "PNG"))
    plain = decode_tile(lossless, (60, 60), SampleRandom(0, 0), config=config)
    assert (scaled.int() - plain.int()).abs().float().mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1", "I;16", "PA"])
def test_every_mode_becomes_rgb(images, mode):
    image = Image.fromarray(images.pixels(1, 12, 10))
    if mode == "I;16":
        image = Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16)) << 8)
    else:
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    result = to_rgb(image)
    assert (result.mode, result.size) == ("RGB", (10, 12))
    if mode in ("L", "I;16", "LA"):
        grey = np.asarray(Image.fromarray(images.pixels(1, 12, 10)).convert("L"))
        assert np.array_equal(np.asarray(result)[..., 0], grey)


def test_transparent_pixels_show_the_background():
    half = np.zeros((4, 4, 4), dtype=np.uint8)
    half[..., 0] = 200
    half[..., 3] = 51
    assert np.asarray(to_rgb(Image.fromarray(half)))[0, 0].tolist() == [244, 204, 204]
    assert np.asarray(to_rgb(Image.fromarray(half), (0, 100, 0)))[0, 0].tolist() == [40, 80, 0]
    palette = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    palette.info["transparency"] = 0
    assert np.asarray(to_rgb(palette))[0, 0].tolist() == [255, 255, 255]


def broken_shard(path, tar, images, count=8):
    """`count` good samples and seven broken ones, each in its own way; returns the names of the
    broken."""
    good = images.encoded(images.pixels(0, 30, 30))
    members = []
    for i in range(count):
        members += [
            (f"good{i}.jpg", images.encoded(images.pixels(i, 30, 30))),
            (f"good{i}.txt", b"fine"),
        ]
    faults = {
        "cut": (good[: len(good) // 2], b"text"),
        "junk": (b"this is no image", b"text"),
        "nothing": (b"", b"text"),
        "blank": (good, b"   "),
        "latin": (good, b"\xe9\xe9"),
    }
    for key, (image, text) in faults.items():
        members += [(f"{key}.jpg", image), (f"{key}.txt", text)]
    members += [("badjson.jpg", good), ("badjson.json", b"{"), ("lonely.jpg", good)]
    tar(path, members)
    return [*faults, "badjson", "lonely"]


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_shrink_their_batch_and_are_named(tmp_path, tar, images, workers):
    names = broken_shard(tmp_path / "s.tar", tar, images)
    config = MosaicConfig(canvas_px=24, single_px=8, mix={2: 1})
    counts, seen = [], []
    for rank in range(2):
        loader = MosaicLoader(
            tmp_path / "s.tar",
            batch_size=7,
            mosaic=config,
            rank=rank,
            world_size=2,
            workers=workers,
            seed=1,
        )
        batches = list(loader)
        counts.append(len(batches))
        for batch in batches:
            seen += batch.keys
            assert len(batch) == sum(len(b) for b in batch.boxes) + len(batch.singles)
            assert set(batch.captions) == {"fine"}
        assert set(loader.skipped.entries) <= {f"s.tar/{n}" for n in names}
    assert counts == [1, 1]
    assert sorted(seen) == [f"good{i}" for i in range(8)]
    loader = MosaicLoader(tmp_path / "s.tar", batch_size=14, mosaic=config, workers=workers)
    for _ in range(2):
        list(loader)
    assert set(loader.skipped.entries) == {f"s.tar/{n}" for n in names}
    assert loader.skipped.counts == {
        "incomplete sample": 1,
        "unreadable image": 3,
        "empty caption": 1,
        "bad caption": 1,
        "bad json": 1,
    }
    assert "s.tar/cut" in loader.skipped.summary()


@pytest.mark.parametrize("workers", [0, 1])
def test_raise_names_the_sample(tmp_path, tar, images, workers):
    good = images.encoded(images.pixels(0, 30, 30))
    tar(
        tmp_path / "s.tar",
        [("a.jpg", good), ("a.txt", b"x"), ("b.jpg", good[:300]), ("b.txt", b"y")],
    )
    loader = MosaicLoader(
        tmp_path / "s.tar",
        batch_size=2,
        mosaic=MosaicConfig(canvas_px=8),
        on_error="raise",
        workers=workers,
    )
    with pytest.raises(BrokenSample, match=r"s\.tar/b: unreadable image"):
        list(loader)


def test_a_batch_without_any_readable_sample_raises(tmp_path, tar):
    tar(tmp_path / "s.tar", [("a.jpg", b"no"), ("a.txt", b"x"), ("b.jpg", b"no"), ("b.txt", b"y")])
    loader = MosaicLoader(tmp_path / "s.tar", batch_size=2, mosaic=MosaicConfig(canvas_px=8))
    with pytest.raises(
        ValueError, match=r"no sample of the batch at 0 in epoch 0 on rank 0 .*s\.tar/a"
    ):
        list(loader)


def test_neighbours_of_a_broken_sample_are_laid_out_anew(images):
    good = [
        raw(images.encoded(images.pixels(i, 40, 40), "PNG"), b"x", name=f"s/{i}") for i in range(13)
    ]
    config, draw = MosaicConfig(canvas_px=36, single_px=10, mix={2: 1, 3: 1}), SampleRandom(0, 0)
    cut = raw(b"no", b"x", name="s/cut")
    batch, faults = build_batch([*good[:5], cut, *good[5:]], draw, config)
    expected, none = build_batch(good, draw, config)
    assert [f.name for f in faults] == ["s/cut"]
    assert none == []
    assert batch.keys == expected.keys
    assert torch.equal(batch.mosaics, expected.mosaics)
    assert torch.equal(batch.singles, expected.singles)


def test_paper_tiles_are_enlarged_with_the_canvas(make_shards):
    config = MosaicConfig(canvas_px=64, single_px=24, tile_source_px=24)
    (batch,) = list(MosaicLoader(make_shards([30]), batch_size=30, mosaic=config))
    assert batch.mosaics.shape == (3, 3, 64, 64)
    assert batch.mosaics.dtype == torch.uint8
    assert torch.allclose(batch.boxes[1][4], torch.tensor([1 / 3, 1 / 3, 2 / 3, 2 / 3]))
    straight = MosaicConfig(canvas_px=64, single_px=24)
    (other,) = list(MosaicLoader(make_shards([30]), batch_size=30, mosaic=straight))
    difference = (batch.mosaics.float() - other.mosaics.float()).abs().mean()
    assert 0 < difference < 12

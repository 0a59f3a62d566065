"""Images of absurd size are refused by their header, wherever images are opened."""

import struct
import zlib

import pytest
from clim_data import (
    BoxLoader,
    CropLoader,
    ImageCaptions,
    InstanceRegions,
    MosaicConfig,
    MosaicLoader,
)
from clim_data.faults import BrokenSample
from clim_data.pixels.decode import decode_rgb, open_image, pixel_limit


def bomb(width=60_000, height=60_000):
    """A png of some hundred bytes whose header claims so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (16_000, 8_001), (2_000_000, 70)])
def test_absurd_sizes_are_refused_by_the_header(size):
    data = bomb(*size)
    assert len(data) < 200
    for call in (open_image, decode_rgb):
        with pytest.raises(
            BrokenSample, match=r"image too large.*make it smaller, or raise max_pixels"
        ) as caught:
            call(data, name="s.tar/bomb")
        assert caught.value.name == "s.tar/bomb"


def test_the_limit_is_an_option_and_an_environment_variable(images, monkeypatch):
    data = images.encoded(images.pixels(1, 100, 100), "PNG")
    assert open_image(data).size == (100, 100)
    assert open_image(data, max_pixels=10_000).size == (100, 100)
    with pytest.raises(
        BrokenSample, match=r"header says 100 x 100 pixels, at most 9999 are decoded"
    ):
        open_image(data, max_pixels=9_999)
    monkeypatch.setenv("CLIM_DATA_MAX_PIXELS", "9000")
    with pytest.raises(BrokenSample, match="at most 9000"):
        decode_rgb(data)
    assert open_image(data, max_pixels=10_000).size == (100, 100)
    for value in ("many", "0", "-3"):
        monkeypatch.setenv("CLIM_DATA_MAX_PIXELS", value)
        with pytest.raises(
            ValueError, match=f"CLIM_DATA_MAX_PIXELS='{value}' must be a whole number"
        ):
            pixel_limit()
        with pytest.raises(ValueError, match="CLIM_DATA_MAX_PIXELS"):
            MosaicLoader("nowhere.tar", batch_size=1)


def test_large_images_below_the_limit_are_opened_without_a_warning():
    assert open_image(bomb(10_000, 12_000)).size == (
        10_000,
        12_000,
    )  # Pillow's own limit warns from 89 million on


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_a_bomb_in_a_shard_is_skipped_or_named(tmp_path, tar, images, on_error):
    good = images.encoded(images.pixels(1, 20, 20))
    members = [
        ("bomb.png", bomb()),
        ("bomb.txt", b"a bomb"),
        ("good.jpg", good),
        ("good.txt", b"fine"),
    ]
    shard = tar(tmp_path / "s.tar", members)
    loader = MosaicLoader(
        shard, batch_size=2, mosaic=MosaicConfig(canvas_px=16, single_px=8), on_error=on_error
    )
    if on_error == "raise":
        with pytest.raises(BrokenSample, match=r"s\.tar/bomb: image too large"):
            list(loader)
        return
    (batch,) = list(loader)
    assert batch.keys == ["good"]
    assert loader.skipped.names == {"image too large": ["s.tar/bomb"]}
    small = MosaicLoader(
        shard, batch_size=2, mosaic=MosaicConfig(canvas_px=16, single_px=8), max_pixels=399
    )
    with pytest.raises(ValueError, match=r"no sample of the batch .* can be read"):
        list(small)


@pytest.mark.parametrize("on_error", ["skip", "raise"])
@pytest.mark.parametrize("boxes", [False, True])
def test_a_bomb_in_a_folder_is_skipped_or_named(tmp_path, images, write_json, boxes, on_error):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bomb.png").write_bytes(bomb(100, 400))
    (tmp_path / "photos" / "good.png").write_bytes(images.encoded(images.pixels(1, 30, 40), "PNG"))
    sizes = {"bomb.png": (400, 100), "good.png": (30, 40)}
    records = [
        {"id": i, "file_name": n, "height": h, "width": w}
        for i, (n, (h, w)) in enumerate(sizes.items())
    ]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(2)
    ]
    options = {"batch_size": 2, "image_px": 16, "on_error": on_error, "max_pixels": 20_000}
    if boxes:
        loader = BoxLoader(
            tmp_path / "photos", boxes=write_json("b.json", records, annotations), **options
        )
    else:
        loader = CropLoader(tmp_path / "photos", crop_px=8, **options)
    if on_error == "raise":
        with pytest.raises(
            BrokenSample,
            match=r"photos/bomb\.png: image too large.*100 x 400 pixels, at most 20000",
        ):
            list(loader)
        return
    (batch,) = list(loader)
    assert (batch.keys, loader.skipped.counts) == (["good.png"], {"image too large": 1})


def test_bombs_in_evaluation_data_are_named(tmp_path, write_json):
    (tmp_path / "bomb.png").write_bytes(bomb())
    image = {"id": 1, "file_name": "bomb.png", "width": 60_000, "height": 60_000}
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 9, 9],
        "caption": "a bomb",
    }
    path = write_json("boxes.json", [image], [annotation])
    regions = InstanceRegions(tmp_path, path, image_px=32, stride=8, masks=False)
    assert "image too large" in regions[0].error
    captions = ImageCaptions(tmp_path, path, 16)
    assert captions[0].captions == []
    assert list(captions.skipped.counts) == ["image too large"]

"""Images of absurd size and other formats are refused; depths and rotations are handled."""

import io
import os
import struct
import zlib

import numpy as np
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
from clim_data.pixels.decode import (
    decode_rgb,
    load_rgb,
    open_image,
    orientation,
    oriented_size,
    pixel_limit,
    to_rgb,
)
from PIL import Image, ImageOps


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


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["BMP", "DDS", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "SGI", "TGA", "TIFF", "EPS"],
)
def test_only_three_formats_are_read_whatever_the_ending(tmp_path, kind):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(Image.new("RGB", (20, 20)), kind))
    for source in (path, path.read_bytes()):
        with pytest.raises(BrokenSample, match=r"x\.jpg: unsupported format: .*convert it to jpg"):
            open_image(source, "x.jpg")


def test_no_other_program_starts(tmp_path, monkeypatch):
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BrokenSample, match="unsupported format: EPS or PostScript"):
        decode_rgb(lines.encode())
    assert not started.exists()


def test_garbage_is_named_without_the_address_of_a_stream():
    with pytest.raises(BrokenSample, match=r"image: unreadable image: not JPEG, PNG or WebP$"):
        open_image(b"no image")


RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_grey_of_16_bits_is_scaled_by_the_range_that_it_uses(top):
    image = Image.fromarray((RAMP * top).astype(np.uint16))
    decoded = decode_rgb(encoded(image))
    assert (int(decoded.min()), int(decoded.max())) == (0, 255)
    assert abs(float(decoded.float().mean()) - 127.5) < 1


@pytest.mark.parametrize(
    ("array", "mean"),
    [
        ((RAMP * 255).astype(np.int32), 127),
        (RAMP.astype(np.float32), 127),
        ((RAMP * 255).astype(np.float32), 127),
        ((RAMP * 25500).astype(np.float32), None),
        ((RAMP * np.nan).astype(np.float32), None),
        ((RAMP - 0.5).astype(np.float32), None),
        ((RAMP * 100_000).astype(np.int32), None),
        ((RAMP * -9).astype(np.int32), None),
    ],
)
def test_integers_and_floats_are_scaled_or_refused(array, mean):
    image = Image.fromarray(array)
    if mean is None:
        with pytest.raises(BrokenSample, match=r"unsupported pixels: .*convert it to 8 bits"):
            to_rgb(image)
    else:
        assert abs(float(np.asarray(to_rgb(image)).mean()) - mean) < 1


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_of_16_bits_that_uses_the_low_ones_only_is_refused(channels):
    """Pillow drops the low byte of such a png, and would give black."""

    def png(values):
        kind = {2: 4, 3: 2, 4: 6}[channels]
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        chunks = [
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in parts
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    values = np.full((8, 8, channels), 200)
    values[..., 2 if channels == 3 else -1] = 200 if channels == 3 else 65535
    with pytest.raises(BrokenSample, match=r"p\.png: unsupported pixels: 16 bits a channel"):
        decode_rgb(png(values), name="p.png")
    assert int(decode_rgb(png(values * 0 + 40_000)).float().mean()) > 100


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9])
def test_rotation_is_applied_where_it_is_asked_for(kind, tag):
    corners = np.zeros((64, 96, 3), np.uint8)
    corners[:32, :48] = (255, 0, 0)
    corners[32:, :48] = (0, 255, 0)
    upright = Image.fromarray(corners)
    exif = Image.Exif()
    exif[274] = tag
    data = encoded(upright, kind, exif=exif, quality=95)
    opened = open_image(data)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert orientation(opened) == (tag if 1 <= tag <= 8 else 1)
    assert oriented_size(opened) == wanted.size
    turned = load_rgb(data, oriented=True)
    assert np.array_equal(np.asarray(turned), np.asarray(wanted))
    assert load_rgb(data).size == (96, 64)
    small = load_rgb(data, oriented=True, at_least=(wanted.width / 2, wanted.height / 2))
    assert small.size == (
        wanted.size if kind != "JPEG" else (wanted.width // 2, wanted.height // 2)
    )


def test_damaged_tags_mean_no_rotation():
    data = encoded(Image.new("RGB", (8, 6)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff junk")
    assert load_rgb(data, oriented=True).size == (8, 6)

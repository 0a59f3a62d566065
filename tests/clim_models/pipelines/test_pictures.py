"""Pictures are read upright from every source, as clim-data reads them."""

import gc
import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from clim_data import BrokenSample, decode_rgb
from clim_models.pipelines import is_url, name_of_picture, read_picture
from clim_models.pipelines.reading import fitted_to_patches, read_ahead, read_fitted
from PIL import Image


def noise(mode="RGB", size=(24, 16)):
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(values.squeeze(-1) if bands == 1 else values, mode)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def sources():
    wide = Image.fromarray((np.arange(24 * 16).reshape(16, 24) * 170).astype(np.uint16))
    palette = noise().quantize(16)
    found = {
        "rgb": encoded(noise()),
        "jpeg": encoded(noise(), "JPEG"),
        "cmyk": encoded(noise("CMYK"), "JPEG"),
        "grey": encoded(noise("L")),
        "grey and alpha": encoded(noise("LA")),
        "alpha": encoded(noise("RGBA")),
        "webp": encoded(noise("RGBA"), "WEBP", lossless=True),
        "16 bits": encoded(wide),
        "palette with a transparent colour": encoded(palette, transparency=3),
    }
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"turn {turn}"] = encoded(noise(), "JPEG", exif=exif)
    return found


@pytest.mark.parametrize("kind", sources())
def test_files_are_read_as_clim_data_reads_them(kind):
    content = sources()[kind]
    expected = decode_rgb(content, oriented=True)
    assert torch.equal(read_picture(content), expected)


def test_every_source_gives_the_same_pixels(tmp_path):
    image = noise()
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    expected = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for source in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        image,
        array,
        expected,
        encoded(image),
    ):
        assert torch.equal(read_picture(source), expected)
    assert torch.equal(read_picture(array[..., 0]), expected[:1].expand(3, -1, -1))


def test_a_url_is_fetched_and_a_missing_one_is_said(monkeypatch):
    content = encoded(noise())

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(content if found else b"")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert is_url(address)
        assert torch.equal(read_picture(f"{address}/a.png"), read_picture(content))
        with pytest.raises(ValueError, match=r"cannot fetch .*b\.png .*check the address"):
            read_picture(f"{address}/b.png")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("no/such.jpg", FileNotFoundError, r"no picture at no/such\.jpg: check the path"),
        (b"GIF89a", ValueError, "picture 0 is no picture that can be read"),
        (encoded(noise(size=(90, 90)), "JPEG")[:-900], ValueError, "pass a whole jpg, png or webp"),
        (np.zeros((4, 4, 3)), ValueError, "array of float64.*pass uint8 RGB"),
        (np.zeros((4, 4, 4), dtype=np.uint8), ValueError, "pass uint8 RGB"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, r"shape \(4, 4, 3\); pass uint8"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_fix(source, error, message):
    with pytest.raises(error, match=message):
        read_picture(source)


def test_a_file_url_and_other_schemes_are_not_followed(tmp_path):
    noise().save(tmp_path / "a.png")
    address = (tmp_path / "a.png").as_uri()
    assert address.startswith("file:")
    assert not is_url(address)
    with pytest.raises(FileNotFoundError):
        read_picture(address)


def test_names(tmp_path):
    noise().save(tmp_path / "a.png")
    assert name_of_picture(tmp_path / "a.png") == str(tmp_path / "a.png")
    assert name_of_picture(b"", 3) == "picture 3"
    assert name_of_picture(Image.open(tmp_path / "a.png")) == str(tmp_path / "a.png")


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_keeps_its_own_size(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    smooth = noise(size=(8, 6)).resize((800, 600))
    read = read_fitted((0, encoded(smooth, "JPEG", exif=exif, quality=95)), 64, 16)
    size = (600, 800) if turn == 1 else (800, 600)
    assert read.size == size
    assert tuple(read.pixels.shape[1:]) == fitted_to_patches(size, 64, 16)
    whole = read_fitted((0, encoded(smooth, "PNG", exif=exif)), 64, 16)
    # Smaller decoding is another filter; the picture stays the same.
    assert (read.pixels.float() - whole.pixels.float()).abs().mean() < 4


def test_reading_ahead_keeps_the_order_and_stops_at_an_error():
    read = []

    def work(number):
        read.append(number)
        if number == 5:
            raise ValueError("five")
        return number * number

    found = read_ahead(work, range(100), ahead=4)
    assert [next(found) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(found)
    assert max(read) < 15


@pytest.mark.parametrize(
    ("size", "px", "expected"),
    [((480, 640), 1024, (768, 1024)), ((10, 1000), 64, (16, 64)), ((30, 20), 48, (48, 32))],
)
def test_sizes_keep_the_shape_on_the_grid(size, px, expected):
    assert fitted_to_patches(size, px, 16) == expected


def test_colour_of_16_bits_whose_low_bits_alone_are_used_is_refused_and_not_black():
    ramp = np.tile(np.arange(64, dtype=np.uint16), (48, 1))
    for top in (255, 4095):
        values = np.stack([ramp * (top // 64)] * 3, -1)
        content = _png_of_16_bits(values)
        with pytest.raises(ValueError, match="16 bits a channel, of which only the low"):
            read_picture(content)
        with pytest.raises(BrokenSample, match="16 bits a channel"):
            decode_rgb(content)
    whole = _png_of_16_bits(np.stack([ramp * 1000] * 3, -1))
    assert torch.equal(read_picture(whole), decode_rgb(whole))


def _png_of_16_bits(values):
    """Encode (height, width, 3) of uint16, which Pillow cannot, as a png."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


@pytest.mark.parametrize("address", ["http://a b.example/x.jpg", "http://[::1/x.jpg"])
def test_addresses_that_are_none_are_named(address):
    with pytest.raises(ValueError, match="cannot fetch http://"):
        read_picture(address)


def test_threads_leave_the_filters_of_warnings_as_they_were():
    filters = list(warnings.filters)
    contents = [encoded(noise()) for _ in range(200)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read_picture, contents))
    assert list(warnings.filters) == filters


def test_a_file_that_cannot_be_read_is_closed(tmp_path):
    whole = encoded(noise(size=(240, 160)))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="cannot read"):
            read_picture(tmp_path / "cut.png")
        gc.collect()

"""From the bytes of an uploaded file to the picture that the page works on."""

from dataclasses import dataclass

from clim_data import BrokenSample
from clim_data.pixels import open_image, to_rgb
from PIL import Image, ImageOps

# Neither LMMs nor SAM see more than about a thousand pixels; masks and their pictures stay small
# enough for a page.
LONGEST_EDGE_PX = 1600
MAX_BYTES = 64 * 1024 * 1024
# The usual formats. Some of Pillow's readers of other formats start programs. MPO: JPEGs of some
# phones.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")


@dataclass(frozen=True)
class Upload:
    """An RGB picture, its longer edge at most `LONGEST_EDGE_PX`, and the (width, height) of the
    file."""

    image: Image.Image
    original_size: tuple[int, int]

    @property
    def shrunk(self) -> bool:
        return self.image.size != self.original_size


def read_upload(data: bytes, name: str = "the file") -> Upload:
    """Read a picture from the bytes of its file, with its EXIF rotation applied, and shrink it if
    it is large.

    Raises:
        ValueError: no picture, a damaged one, too many bytes, or more pixels than
            `clim_data.pixels.decode.pixel_limit`.
    """
    if not data:
        raise ValueError(f"{name} is empty: choose a JPEG, PNG or WebP picture")
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has more than {MAX_BYTES >> 20} MB: make it smaller")

    opened = _opened(data, name)
    stored = opened.size
    try:
        # Large JPEGs are decoded at a fraction of their size.
        opened.draft("RGB", (LONGEST_EDGE_PX, LONGEST_EDGE_PX))
        image = to_rgb(ImageOps.exif_transpose(opened))
    except Exception as fault:  # damaged pixels can make a Pillow plugin raise nearly anything
        raise ValueError(f"{name} is damaged ({fault}): choose a whole picture") from fault

    turned = (image.width > image.height) != (stored[0] > stored[1])
    image.thumbnail((LONGEST_EDGE_PX, LONGEST_EDGE_PX), Image.Resampling.LANCZOS)
    return Upload(image, stored[::-1] if turned else stored)


def _opened(data: bytes, name: str) -> Image.Image:
    no_picture = f"{name} cannot be read as a picture: choose a JPEG, PNG or WebP file"
    try:
        opened = open_image(data, name)
    except BrokenSample as fault:
        if fault.reason in ("unreadable image", "unsupported format"):
            raise ValueError(no_picture) from fault
        raise
    if opened.format not in FORMATS:
        raise ValueError(no_picture)
    return opened

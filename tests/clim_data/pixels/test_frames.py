"""The frame of annotations: sizes, and EXIF tags that turn an image out of it."""

import io

import pytest
from clim_data.faults import BrokenSample
from clim_data.pixels.frames import check_frame
from PIL import Image

STORED = (40, 60)  # height, width


def opened(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = io.BytesIO()
    Image.new("RGB", STORED[::-1]).save(data, "JPEG", exif=exif)
    return Image.open(data)


@pytest.mark.parametrize("stated", [STORED, None])
def test_an_image_as_it_is_stored_fits(stated):
    assert check_frame(opened(1), stated, "1.jpg") is None


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_a_tag_that_leaves_the_size_is_a_warning(orientation):
    warning = check_frame(opened(orientation), STORED, "1.jpg")
    assert warning is not None
    assert warning.reason == "EXIF orientation"


@pytest.mark.parametrize(
    ("orientation", "stated", "says"),
    [
        (6, (60, 40), "its EXIF tag turns it by 90 degrees: turn its pixels"),
        (8, (60, 40), "its EXIF tag turns it by 90 degrees: turn its pixels"),
        (3, (60, 40), "use the images that it was made for"),
        (6, (80, 120), "use the images that it was made for"),
        (1, (60, 40), "60 x 40 pixels, the json 40 x 60"),
    ],
)
def test_another_size_is_refused(orientation, stated, says):
    with pytest.raises(BrokenSample, match=f"size mismatch: .*{says}"):
        check_frame(opened(orientation), stated, "1.jpg")

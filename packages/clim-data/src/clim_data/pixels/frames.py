"""The frame of annotations in pixels: the size of the image, and its EXIF rotation."""

from typing import NoReturn

from PIL import Image

from clim_data.faults import BrokenSample, SampleWarning
from clim_data.pixels.decode import orientation

# The change that a viewer makes to the stored pixels, for messages.
_TURNS = {
    2: "mirrors it",
    3: "turns it by 180 degrees",
    4: "flips it",
    5: "mirrors it and turns it by 90 degrees",
    6: "turns it by 90 degrees",
    7: "mirrors it and turns it by 90 degrees",
    8: "turns it by 90 degrees",
}


def check_frame(
    image: Image.Image, stated: tuple[int, int] | None, name: str, *, file: str = "the json"
) -> SampleWarning | None:
    """Check that annotations in pixels lie in the frame of an opened image, as it is stored.

    Args:
        image: from `open_image`, or decoded and not turned.
        stated: (height, width) that the annotation file gives, None where it gives none.
        name: what to call the image in an error.
        file: what to call the annotation file in an error.

    Returns:
        A warning when the image has an EXIF rotation and its stored size fits: then the annotations
        are taken to be in the stored pixels.

    Raises:
        BrokenSample: the sizes differ, so that the annotations are in another frame.
    """
    size = image.height, image.width
    turn = _TURNS.get(orientation(image))
    if stated is not None and stated != size:
        fits_turned = stated == size[::-1] and turn is not None and "90" in turn
        refuse_size(size, stated, name, file=file, turn=turn if fits_turned else None)
    if turn is None:
        return None
    detail = f"its EXIF tag {turn}: {file} is taken to describe the stored pixels"
    return SampleWarning("EXIF orientation", name, detail)


def refuse_size(
    size: tuple[int, int],
    stated: tuple[int, int],
    name: str,
    *,
    file: str = "the json",
    turn: str | None = None,
) -> NoReturn:
    """Raise the BrokenSample of an image of (height, width) that `file` gives another size."""
    detail = f"the image has {size[1]} x {size[0]} pixels, {file} {stated[1]} x {stated[0]}"
    if turn is not None:
        fix = "turn its pixels (exiftran), or annotate the stored ones"
        raise BrokenSample("size mismatch", name, f"{detail}; its EXIF tag {turn}: {fix}")
    raise BrokenSample("size mismatch", name, f"{detail}: use the images that it was made for")

"""The places in an answer of an LMM, on the image that it was asked about.

LMMs count in parts of their input: the image, or the padded square around it. Some count in pixels
of the image after it was resized.
"""

from collections.abc import Sequence

from flmm.adapters.family import Family, PixelFrame
from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.text.boxes import ANY, BoxFormat, Place


def box_format(family: Family) -> BoxFormat:
    """Return the box format of a family; `flmm.text.boxes.ANY` if it has none."""
    return getattr(family, "boxes", ANY)


def answered_places(family: Family, prepared: PreparedImage, answer: str) -> list[Place]:
    """Find the places in an answer, in pixels of the original image, the first one first.

    Boxes are clipped to the image. Places outside it, and boxes without area, are dropped, except
    the points of a format that points.

    Args:
        prepared: the image that the LMM was asked about, of the same family.
        answer: its text, special tokens included: some are coordinates.
    """
    style = box_format(family)
    frame = family.layout(prepared).padding or ImageFrame.whole(prepared.frame.image_size)
    found = []
    for place in style.places(answer):
        on_image = _clip_place(_on_image(place, style, family, prepared, frame), frame.image_size)
        if on_image is not None and (style.pointing or _has_area(on_image)):
            found.append(on_image)
    return found


def _on_image(
    place: Place, style: BoxFormat, family: Family, prepared: PreparedImage, frame: ImageFrame
) -> Place:
    """Turn numbers of an answer into pixels of the original image."""
    scale = style.scale_of(place)
    if scale is not None:
        edges = (scale, scale)
    elif isinstance(family, PixelFrame):
        edges = family.seen_size(prepared)
    else:
        raise ValueError(
            f"{type(family).__name__}.boxes counts in pixels: the family needs `seen_size`, see "
            "flmm.adapters.family.PixelFrame"
        )
    left, top, right, bottom = place
    x0, x1 = _along((left, right), edges[1], frame, axis=1, before=frame.left)
    y0, y1 = _along((top, bottom), edges[0], frame, axis=0, before=frame.top)
    return x0, y0, x1, y1


def _along(
    values: Sequence[float], edge: float, frame: ImageFrame, *, axis: int, before: int
) -> list[float]:
    """Turn numbers along one axis into pixels; `before` are the pixels of padding before it."""
    padded, content = frame.padded_size[axis], frame.content_size[axis]
    scale = frame.image_size[axis] / content
    return [(value / edge * padded - before) * scale for value in values]


def _clip_place(place: Place, size: tuple[int, int]) -> Place | None:
    """Clip a place to an image of (height, width); None where it is outside."""
    height, width = size
    left, top, right, bottom = place
    if right < 0 or bottom < 0 or left > width or top > height:
        return None
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def _has_area(place: Place) -> bool:
    left, top, right, bottom = place
    return right > left and bottom > top

"""Masks and attention as small PNGs that the page lays over the picture, and results as JSON.

Letters: N phrases, H W pixels of the picture, h w of an attention map.
"""

import base64
import io
from typing import Any

import numpy as np
from clim_eval.pictures import Scale, hue
from PIL import Image

from flmm.pictures.masks import colour_of
from flmm.web.results import AnsweredQuestion, CloserLook, GroundedPhrases
from flmm.web.upload import Upload, read_upload

# Masks of small pictures are drawn larger, so that their outline stays thin.
DRAWN_PX = 640
FILL_OPACITY = 115  # of 255
THUMBNAIL_PX = 160


def mask_png(mask: np.ndarray, colour: str) -> bytes:
    """Draw a mask bool (H, W) as PNG: transparent outside, half transparent in the colour
    ("#rrggbb") inside, with a white outline."""
    times = max(1, round(DRAWN_PX / max(mask.shape)))
    drawn = mask.repeat(times, axis=0).repeat(times, axis=1)
    inner = drawn
    for _ in range(max(1, round(max(drawn.shape) / DRAWN_PX))):
        inner = _eroded(inner)

    levels = drawn.astype(np.uint8) + (drawn & ~inner)  # 0 outside, 1 inside, 2 outline
    image = Image.frombytes(
        "P", (drawn.shape[1], drawn.shape[0]), levels.astype(np.uint8).tobytes()
    )
    image.putpalette([0, 0, 0, *bytes.fromhex(colour[1:]), 255, 255, 255])
    return _png(image, transparency=bytes([0, FILL_OPACITY, 255]))


def heat_pngs(attention: np.ndarray) -> list[bytes]:
    """Draw attention maps (N, h, w) as PNGs in the one hue of maps, all on one scale: transparent
    where there is little.

    The scale ends at the 99th percentile: single tokens can have far more attention than all
    others.
    """
    if not len(attention):
        return []
    low, high = Scale.of(attention).low, np.percentile(attention, 99)
    shown = np.clip((attention - low) / max(high - low, 1e-12), 0, 1)
    colours = hue()
    return [_png(Image.fromarray((255 * colours(one)).astype(np.uint8))) for one in shown]


def picture_view(name: str, upload: Upload) -> dict[str, Any]:
    """Return a picture for the page: its name, size, pixels, and a note if it was shrunk."""
    width, height = upload.image.size
    note = ""
    if upload.shrunk:
        was = "{} x {}".format(*upload.original_size)
        note = (
            f"{was} pixels, shrunk to {width} x {height} for this page; "
            "`flmm ground` keeps the size"
        )
    return {
        "picture": name,
        "width": width,
        "height": height,
        "note": note,
        "source": _shown(upload.image),
    }


def thumbnail(data: bytes, name: str) -> bytes:
    """Make a small JPEG of a picture's file; raises ValueError as `read_upload`."""
    image = read_upload(data, name).image
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _jpeg(image)


def answer_view(answered: AnsweredQuestion) -> dict[str, Any]:
    """Return an answer for the page; "found" is None if nothing is grounded."""
    found = None if answered.found is None else found_view(answered.found)
    return {
        "answer": answered.name,
        "text": answered.text,
        "remembered": answered.remembered,
        "found": found,
    }


def found_view(found: GroundedPhrases) -> dict[str, Any]:
    """Return masks for the page: pieces of the text, for each phrase its mask, attention, area,
    score, bbox (x, y, width, height in pixels), whether it is in the picture, and the phrases that
    the heads do not know."""
    height, width = found.masks.shape[1:]
    heats = heat_pngs(found.attention)
    phrases = [
        {
            "phrase": kept["phrase"],
            "colour": colour_of(index),
            "area": kept["area"],
            "share": kept["area"] / (height * width),
            "bbox": kept["bbox"],
            "score": kept["score"],
            "in_picture": kept.get("in_picture", True),
            "centre": inner_point(mask),
            "mask": _url(mask_png(mask, colour_of(index))),
            "attention": _url(heat),
        }
        for index, (kept, mask, heat) in enumerate(zip(found.record["phrases"], found.masks, heats))
    ]
    return {
        "result": found.result,
        "pieces": pieces(found.text, found.spans),
        "phrases": phrases,
        "unknown": list(found.unknown),
    }


def inner_point(mask: np.ndarray) -> tuple[int, int] | None:
    """Return the pixel (x, y) of a mask bool (H, W) that is nearest to its centre; None for an
    empty mask."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return None
    nearest = ((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin()
    return int(columns[nearest]), int(rows[nearest])


def look_view(look: CloserLook) -> dict[str, Any]:
    """Return a closer look for the page. The box is XYXY in pixels."""
    mask = None if look.mask is None else _url(mask_png(look.mask, colour_of(0)))
    return {
        "question": look.question,
        "thought": look.thought.strip(),
        "answer": look.answer.strip(),
        "box": list(look.box),
        "colour": colour_of(0),
        "mask": mask,
        "crop": _shown(look.crop),
    }


def pieces(text: str, spans: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
    """Cut a text at its phrases: {"text", "phrase": number of the phrase, or None between phrases}.

    Spans may be in any order. A span that overlaps an earlier one gets no piece of its own.
    """
    cut: list[dict[str, Any]] = []
    end = 0
    for number, (start, stop) in sorted(enumerate(spans), key=lambda entry: entry[1]):
        if start < end:
            continue
        cut.append({"text": text[end:start], "phrase": None})
        cut.append({"text": text[start:stop], "phrase": number})
        end = stop
    cut.append({"text": text[end:], "phrase": None})
    return [piece for piece in cut if piece["text"]]


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Remove the pixels that touch the outside of the mask or of the picture."""
    around = np.pad(mask, 1)
    return mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]


def _png(image: Image.Image, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG", **options)
    return written.getvalue()


def _shown(image: Image.Image) -> str:
    """Encode a picture for the page: as PNG if it is small and will be enlarged, else as JPEG."""
    return _url(_png(image)) if max(image.size) <= DRAWN_PX else _url(_jpeg(image), "jpeg")


def _jpeg(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=92)
    return written.getvalue()


def _url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

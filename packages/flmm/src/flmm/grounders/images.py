"""Ground user phrases in one image: arrays, and files with the picture and the masks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clim_data.files import write_json
from clim_data.pixels import box_of_mask, encode_mask, xyxy_to_xywh
from clim_eval.pictures import write_figure
from PIL import Image

from flmm.grounded import GroundedLMM
from flmm.grounders.grounder import Grounder, ScoredMasks
from flmm.grounders.heads import HeadsGrounder
from flmm.pictures.files import grounding_path
from flmm.pictures.masks import grounding_figure
from flmm.text.boxes import Place


def ground(
    image: Image.Image | str | Path,
    phrases: str | Iterable[str],
    model: GroundedLMM | Grounder,
    *,
    min_score: float = 0.0,
) -> np.ndarray:
    """Ground phrases in an image: bool (N, H, W) at its size, in the order of the phrases.

    Args:
        image: a picture in memory, or its file.
        phrases: one or more texts, such as "a red car". The LMM reads them one after the other, as
            if it had written them, so a phrase can depend on those before it.
        model: a model of `load_grounded`, or any grounder.
        min_score: phrases with a lower score get an empty mask; see `Grounding`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, more than the context holds, or the file is no image.
    """
    grounder = HeadsGrounder(model) if isinstance(model, GroundedLMM) else model
    return grounder(image, phrases).binary(min_score).cpu().numpy()


@dataclass(frozen=True)
class PhraseMarks:
    """Marks of N phrases next to masks and scores; None where nobody knows them.

    in_picture: see `ScoredMasks.in_picture`. places: see `ScoredMasks`.
    """

    in_picture: Sequence[bool] | None = None
    places: Sequence[Sequence[Place]] | None = None

    @classmethod
    def of(cls, found: ScoredMasks) -> "PhraseMarks":
        """Return the marks of grounded phrases."""
        return cls(found.in_picture(), found.places)


def masks_as_json(
    masks: np.ndarray,
    phrases: Sequence[str],
    scores: Sequence[float] | None = None,
    marks: PhraseMarks | None = None,
) -> dict[str, Any]:
    """Turn masks bool (N, H, W) into plain data.

    Returns:
        {"size": [H, W], "phrases": [{"phrase", "segmentation" (COCO RLE), "area", "bbox" (XYWH in
        pixels), "found" (False for an empty mask), with `scores` "score" (in [0, 1]), and
        with `marks` "in_picture" (False for a phrase that is not in the picture) and "boxes" (XYWH,
        what the LMM wrote) or "points" (XY), where they are known}]}.
    """
    found = []
    for number, (mask, phrase) in enumerate(zip(masks, phrases, strict=True)):
        box = box_of_mask(mask)
        record = {
            "phrase": phrase,
            "segmentation": encode_mask(mask),
            "area": int(mask.sum()),
            "bbox": list(xyxy_to_xywh(box or (0, 0, 0, 0))),
            "found": box is not None,
        }
        if scores is not None:
            record["score"] = round(float(scores[number]), 4)
        if marks is not None and marks.in_picture is not None:
            record["in_picture"] = bool(marks.in_picture[number])
        if marks is not None and marks.places is not None:
            record |= places_as_json(marks.places[number])
        found.append(record)
    return {"size": list(masks.shape[1:]), "phrases": found}


def places_as_json(places: Sequence[Place]) -> dict[str, list]:
    """Return the boxes, XYWH, or the points, XY, that the LMM wrote for a phrase."""
    points, boxes = [], []
    for left, top, right, bottom in places:
        if (left, top) == (right, bottom):
            points.append([round(left, 2), round(top, 2)])
        else:
            boxes.append([round(edge, 2) for edge in (left, top, right - left, bottom - top)])
    return {"points": points} if points else {"boxes": boxes}


def save_grounding(
    path: str | Path,
    image: Image.Image,
    masks: np.ndarray,
    phrases: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    marks: PhraseMarks | None = None,
    title: str = "",
    about: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write masks as JSON (`about` and `masks_as_json`), and draw them next to it.

    The masks are written first, so a picture that cannot be drawn loses none of them. Phrases that
    are not in the picture, as `marks` says, are named beneath it; their masks are in the JSON only.

    Args:
        path: of the picture, .png, .jpg or .webp; the JSON has the same name with the ending .json.
        masks: bool (N, H, W).
        scores: of the N phrases, for JSON and picture; None for neither.
        marks: further marks of the N phrases, for JSON and picture.

    Returns:
        Both paths.

    Raises:
        ValueError: as `grounding_path`, or the masks are no bool array with one mask for each
            phrase.
        PictureError: the masks are written, but the picture could not be drawn.
    """
    path = grounding_path(path)
    beside = path.with_suffix(".json")
    if masks.dtype != bool:
        raise ValueError(f"masks of {masks.dtype} are no masks: pass bool ones, such as logits > 0")
    if len(masks) != len(phrases):
        raise ValueError(f"{len(masks)} masks for {len(phrases)} phrases: pass one mask for each")

    record = masks_as_json(masks, phrases, scores, marks)
    write_json(beside, {**(about or {}), **record}, indent=1)
    labels = labels_of_phrases(phrases, scores)
    drawn = masks_to_draw(masks, None if marks is None else marks.in_picture)
    figure = grounding_figure(image, drawn, labels, title=title)
    try:
        write_figure(path, figure)
    except Exception as fault:  # a text or a font can make matplotlib raise nearly anything
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise PictureError(
            f"the picture {path} could not be drawn ({reason}); the masks are in {beside}"
        ) from fault
    return path, beside


def labels_of_phrases(phrases: Sequence[str], scores: Sequence[float] | None) -> list[str]:
    """Return the labels of a picture, such as "a cat 0.93"; without scores the phrases alone."""
    if scores is None:
        return list(phrases)
    return [f"{phrase} {score:.2f}" for phrase, score in zip(phrases, scores, strict=True)]


def masks_to_draw(masks: np.ndarray, in_picture: Sequence[bool] | None) -> np.ndarray:
    """Return masks (N, H, W) with empty ones for the phrases that are not in the picture.

    A mask is found for any phrase. On a drawing it would hide what is there; `grounding_figure`
    names phrases with an empty mask as "not found".
    """
    if in_picture is None:
        return masks
    return masks & np.asarray(in_picture, dtype=bool)[:, None, None]


class PictureError(ValueError):
    """A picture that could not be drawn, though its masks are written."""

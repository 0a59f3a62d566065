"""Places of things as LMMs write them in an answer, one format for each kind of LMM.

A family names its format in its class (`Family.boxes`); `flmm.adapters.boxes` asks and puts the
places on the image. Coordinates are read in one way only, the family's own: trying several readings
and taking the best would give every LMM credit for an answer that it did not write.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# A place in the numbers of an answer: (left, top, right, bottom), or a point twice.
Place = tuple[float, float, float, float]

_NUMBER = r"(-?\d+(?:\.\d+)?)"
# A truncated list has no closing bracket, and its last number may lack digits. Some LMMs write two
# corners, "(12, 34), (560, 780)".
_TWO_NUMBERS = rf"\s*{_NUMBER}\s*,\s*{_NUMBER}\s*"
_FOUR_NUMBERS = re.compile(rf"[\[(]{_TWO_NUMBERS}(?:,|[\])]\s*,?\s*[\[(]){_TWO_NUMBERS}[\])]")
_LOCATIONS = re.compile(r"\s*".join([r"<loc(\d+)>"] * 4))
_POINT_TAG = re.compile(r"<(?:point|tracks?)s?\b[^>]*")
_PERCENT = re.compile(rf'\bx\d*="{_NUMBER}"\s+y\d*="{_NUMBER}"')
_COORDS = re.compile(r'\bcoords="([^"]*)("?)')
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"


def bracketed(text: str) -> list[Place]:
    """Find lists of four numbers, as in JSON: `[{"bbox_2d": [12, 34, 56, 78]}]` -> one place."""
    return [_four(found) for found in _FOUR_NUMBERS.finditer(text)]


def locations(text: str) -> list[Place]:
    """Find four location tokens in a row, `<loc0012><loc0034><loc0056><loc0078>` -> one place."""
    return [_four(found) for found in _LOCATIONS.finditer(text)]


def points(text: str) -> list[Place]:
    """Find Molmo's points, in thousandths of the image.

    Molmo 2 writes `<points coords="1 1 523 439 2 600 500">`: the number of the image, then number,
    x and y of each point. Molmo writes percents, `<point x="52.3" y="43.9">`.
    """
    places: list[Place] = []
    for tag in _POINT_TAG.finditer(text):
        for found in _PERCENT.finditer(tag[0]):
            x, y = (10 * float(number) for number in found.groups())
            places.append((x, y, x, y))
        for found in _COORDS.finditer(tag[0]):
            numbers, closed = found.groups()
            if not closed:  # the last number may lack digits
                numbers = numbers.rstrip("0123456789.")
            for group in re.split(r"[\t:,;]", numbers):
                places += _numbered_points(group, closed=bool(closed))
    return places


def _four(found: re.Match[str]) -> Place:
    first, second, third, fourth = (float(number) for number in found.groups())
    return first, second, third, fourth


def _numbered_points(group: str, *, closed: bool) -> list[Place]:
    """Read "1 1 523 439 2 600 500", or "523 439" without numbers of image and points.

    closed: whether the group is complete.
    """
    try:
        numbers = [float(word) for word in group.split()]
    except ValueError:  # "5.", say, of an answer that went wrong
        return []
    if len(numbers) == 2 and closed:
        numbers = [1, 1, *numbers]
    places: list[Place] = []
    for x, y in zip(numbers[2::3], numbers[3::3]):
        places.append((x, y, x, y))
    return places


@dataclass(frozen=True)
class BoxFormat:
    """The question for the place of a thing in a family of LMMs, and the format of its answer.

    question: with `{phrase}`.
    read: finds the places in an answer; such as `bracketed`.
    scale: the number of the right and the lower edge of the LMM's input, the image or the padded
    square; None: numbers are pixels of the resized image.
    rows_first: y stands before x.
    fractions_too: numbers that sum to less than 4 are fractions (InternVL's own evaluation).
    pointing: places are points.
    trained: its makers say that the family was trained for this format. Others are asked, too,
    and an answer without a place is counted.
    max_new_tokens: an answer without a place ends after this number of tokens.

    Raises:
        ValueError: the question has no `{phrase}`, or a number is out of range.
    """

    question: str
    read: Callable[[str], list[Place]] = bracketed
    scale: float | None = 1000
    rows_first: bool = False
    fractions_too: bool = False
    pointing: bool = False
    trained: bool = True
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if "{phrase}" not in self.question:
            raise ValueError(f"question={self.question!r} must hold {{phrase}}")
        if (self.scale is not None and self.scale <= 0) or self.max_new_tokens < 1:
            raise ValueError(
                f"scale={self.scale} and max_new_tokens={self.max_new_tokens} must be positive"
            )

    def ask(self, phrase: str) -> str:
        """Return the question about a phrase."""
        return self.question.replace("{phrase}", phrase)

    def places(self, answer: str) -> list[Place]:
        """Find the places in an answer -> (left, top, right, bottom) each, in its own numbers.

        A thought before the answer is no answer. Corners may come in any order. A truncated place
        is dropped.
        """
        _, _, rest = answer.rpartition(_THOUGHT_ENDS)
        if _THOUGHT_BEGINS in rest:
            return []
        places: list[Place] = []
        for first, second, third, fourth in self.read(rest):
            across, down = (first, third), (second, fourth)
            if self.rows_first:
                across, down = down, across
            places.append((min(across), min(down), max(across), max(down)))
        return places

    def scale_of(self, place: Place) -> float | None:
        """Return the number of the far edge in this place; see `scale`."""
        return 1.0 if self.fractions_too and sum(place) < 4 else self.scale


_DESCRIBED = "Please provide the bounding box coordinate of the region this sentence describes: "
_THINKING = 1024  # tokens of a thought and a first place

_LOCATE = (
    "Locate {phrase}. Report the bbox coordinates in JSON format: a list with one "
    '{"bbox_2d": [x1, y1, x2, y2], "label": ...} for each.'
)

QWEN = BoxFormat(_LOCATE, max_new_tokens=_THINKING)
"""Qwen3-VL and Qwen3.5: thousandths (QwenLM/Qwen3-VL#1486)."""
QWEN_PIXELS = BoxFormat(_LOCATE, scale=None)
"""Qwen2.5-VL: pixels of the resized image (QwenLM/Qwen3-VL#676)."""
INTERNVL = BoxFormat(_DESCRIBED + "<ref>{phrase}</ref>", fractions_too=True)
"""InternVL: thousandths (its documentation of grounding data)."""
GLM = BoxFormat(
    "Where is {phrase}? Give the bounding box of each as [[x1, y1, x2, y2]].",
    max_new_tokens=_THINKING,
)
LLAVA = BoxFormat(_DESCRIBED + "{phrase}", scale=1)
"""LLaVA-1.5 and Mini-Gemini: fractions of the padded square (haotian-liu/LLaVA#606)."""
LLAVA_TILED = BoxFormat(_DESCRIBED + "{phrase}", scale=1, trained=False)
"""LLaVA-NeXT and -OneVision see tiles without padding. Their makers do not say what numbers are
fractions of (haotian-liu/LLaVA#1158 has no answer): they are read as fractions of the image."""
PALIGEMMA = BoxFormat("detect {phrase}", locations, scale=1024, rows_first=True)
GEMMA = BoxFormat(
    'Detect {phrase}. Answer with JSON, one {"box_2d": [y0, x0, y1, x1], "label": "..."} for each '
    "in a list, coordinates from 0 to 1000.",
    rows_first=True,
    trained=False,
)
"""Gemini's format. Google names detection among the abilities of Gemma 4
(ai.google.dev/gemma/docs/capabilities/vision) without a format of boxes, and says of Gemma 3 that
nothing documents one (discussion 38 of google/gemma-3-4b-it)."""
MOLMO = BoxFormat("Point to {phrase}.", points, pointing=True)

ANY = BoxFormat(
    'Where is "{phrase}" in the image? Answer with JSON only, one {"bbox_2d": [left, top, right, '
    "bottom]} for each in a list, numbers from 0 (left or top edge) to 1000 (right or bottom "
    "edge).",
    trained=False,
)
"""LMMs that are not known to be trained to write boxes."""

"""Results that the page shows: of a question, of phrases, of a closer look.

Letters: N phrases, H W pixels of the picture, h w the grid of an attention map.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class GroundedPhrases:
    """Phrases and their masks.

    result: its name for `Demo.files`. text: of the answer, "" for phrases of the user. phrases: N
    texts. spans: the characters (start, end) of each in the text. masks: bool (N, H, W). attention:
    float32 (N, h, w), see `flmm.pictures.mean_attention`. unknown: the phrases without a noun that
    the heads know. record: plain data, see `flmm.grounders.images.masks_as_json`, with scores and,
    where these tell, "in_picture".
    """

    result: str
    text: str
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    masks: np.ndarray
    attention: np.ndarray
    unknown: tuple[str, ...]
    record: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class AnsweredQuestion:
    """An answer and the masks of its phrases.

    name: of the answer, for `Demo.mark`. remembered: number of earlier turns in the prompt.
    found: None where the answer names no present thing.
    """

    name: str
    text: str
    remembered: int
    found: GroundedPhrases | None


@dataclass(frozen=True)
class CloserLook:
    """Visual chain of thought. mask: bool (H, W) of what matters, None where the LMM had no
    thought.

    box: (x0, y0, x1, y1) in pixels, of what was looked at; crop: that part.
    """

    question: str
    thought: str
    answer: str
    mask: np.ndarray | None
    box: tuple[int, int, int, int]
    crop: Image.Image

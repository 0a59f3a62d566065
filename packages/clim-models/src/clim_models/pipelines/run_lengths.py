"""Masks as COCO writes them: run lengths, column by column, in a short text.

pycocotools has the same; this package does not depend on it, and a test compares the two.
"""

from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as COCO's compressed RLE.

    Args:
        mask: bool (height, width).

    Returns:
        `size` (height, width) and `counts`, a text of ASCII letters that json can hold.
    """
    height, width = mask.shape
    return {"size": [height, width], "counts": _text_of(_runs(mask))}


def _runs(mask: np.ndarray) -> list[int]:
    """Return the lengths of runs of 0 and 1 by turns, down the columns; the first is of 0."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return runs


def _text_of(runs: list[int]) -> str:
    """Write runs as COCO does: from the fourth on the difference to the run two before, in groups
    of five bits, lowest first, with a bit that says whether more follow."""
    letters = []
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            # The rest must be the sign of the last group.
            more = value != (-1 if bits & 0x10 else 0)
            letters.append(chr(48 + (bits | (0x20 if more else 0))))
    return "".join(letters)

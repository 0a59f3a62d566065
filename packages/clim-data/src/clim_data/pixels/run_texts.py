"""COCO's texts of run lengths, decoded and checked by ourselves: one, or many at once.

A text holds runs of unset and set pixels by turns, down the columns, in groups of 5 bits; the sixth
bit of a character says that its number goes on.
"""

from collections.abc import Collection, Sequence

import numpy as np

from clim_data.faults import BrokenSample

BAD = "bad segmentation"

# A compressed run is at most 7 groups of 5 bits: enough for 2**32 pixels, no overflow in int64.
_MAX_GROUPS = 7
_CUT = "the text of the runs breaks off, or a run is too long"


def runs_of_text(text: str, name: str) -> np.ndarray:
    """Decode COCO's text: runs in groups of 5 bits, from the fourth on as differences."""
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if not len(codes):
        raise BrokenSample(BAD, name, "the text of the runs is empty")
    if codes.min() < 0 or codes.max() > 63:
        raise BrokenSample(BAD, name, "the text of the runs has characters that it cannot have")

    is_last = codes & 32 == 0
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if not is_last[-1] or (ends - starts).max() >= _MAX_GROUPS:
        raise BrokenSample(BAD, name, _CUT)

    values = _runs_of_groups(codes, starts, ends)

    # From the fourth on a run is given by its difference to the run before the last one.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def check_run_texts(texts: Sequence[bytes], pixels: np.ndarray) -> dict[int, str]:
    """Check the texts of many masks at once, as `segmentations.check_runs` checks one.

    Args:
        texts: n of them.
        pixels: int64 (n,), of the image of each.

    Returns:
        What is wrong, by the place of the text.
    """
    if not texts:
        return {}
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    codes = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - 48
    owners = np.repeat(np.arange(len(texts)), lengths)
    last = np.cumsum(lengths) - 1

    wrong = dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "the text of the runs is empty")
    strange = (codes < 0) | (codes > 63)
    for place in np.unique(owners[strange]).tolist():
        wrong[place] = "the text of the runs has characters that it cannot have"
    is_last = codes & 32 == 0
    filled = np.flatnonzero(lengths)
    for place in filled[~is_last[last[filled]]].tolist():
        wrong.setdefault(place, _CUT)
    if wrong:  # numbers would go on in the next text
        return wrong | _check_others(texts, pixels, wrong)

    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    too_long = ends - starts >= _MAX_GROUPS
    if too_long.any():
        wrong = dict.fromkeys(owners[ends[too_long]].tolist(), _CUT)
        return wrong | _check_others(texts, pixels, wrong)
    return _unfit_runs(_runs_of_groups(codes, starts, ends), owners[ends], pixels)


def _check_others(
    texts: Sequence[bytes], pixels: np.ndarray, known: Collection[int]
) -> dict[int, str]:
    """Check the texts whose faults are not known yet."""
    others = [place for place in range(len(texts)) if place not in known]
    found = check_run_texts([texts[place] for place in others], pixels[others])
    return {others[place]: detail for place, detail in found.items()}


def _runs_of_groups(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the number that each group of 5 bits says, see `runs_of_text`."""
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = codes[ends] & 16 != 0  # the sign is the highest bit of the last group
    values[negative] -= 1 << (5 * (ends - starts + 1)[negative])
    return values


def _unfit_runs(values: np.ndarray, owners: np.ndarray, pixels: np.ndarray) -> dict[int, str]:
    """Say which texts have runs outside their image, or of another sum.

    Args:
        values: int64 (r,), numbers of all texts one after the other.
        owners: int64 (r,), the text of each.
        pixels: int64 (n,), of each text.
    """
    counts = np.bincount(owners, minlength=len(pixels))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    number = np.arange(len(values)) - first[owners]

    # From the fourth on a run is given by its difference to the run before the last one.
    runs = np.where(number == 0, values, 0)
    for parity in (1, 0):
        own = (number % 2 == parity) & (number > 0)
        sums = np.cumsum(np.where(own, values, 0))
        before = np.concatenate([[0], sums])[first]
        runs[own] = (sums - before[owners])[own]

    outside = (runs < 0) | (runs > pixels[owners])
    wrong: dict[int, str] = {}
    for place, run in zip(owners[outside].tolist(), runs[outside].tolist(), strict=True):
        wrong.setdefault(place, f"a run of {run} in {pixels[place]} pixels")
    totals = np.bincount(owners, weights=runs, minlength=len(pixels)).astype(np.int64)
    for place in np.flatnonzero(totals != pixels).tolist():
        wrong.setdefault(place, f"runs add up to {totals[place]} of {pixels[place]} pixels")
    return wrong

"""Texts of runs that are checked many at a time: the same answers as one by one."""

import numpy as np
import pytest
from clim_data.faults import BrokenSample
from clim_data.pixels import check_run_texts, encode_mask
from clim_data.pixels.segmentations import check_runs

SIZES = [(1, 1), (7, 5), (48, 64), (300, 2)]


def masks(count):
    random = np.random.default_rng(0)
    for number in range(count):
        size = SIZES[number % len(SIZES)]
        yield random.random(size) < random.choice([0.0, 0.05, 0.5, 1.0])


def one_by_one(texts, sizes):
    wrong = {}
    for place, (text, size) in enumerate(zip(texts, sizes, strict=True)):
        try:
            check_runs({"size": list(size), "counts": text}, size, "mask")
        except BrokenSample as fault:
            wrong[place] = fault.detail
    return wrong


def test_masks_that_were_encoded_are_sound():
    found = [encode_mask(mask) for mask in masks(40)]
    texts = [one["counts"].encode() for one in found]
    pixels = np.array([np.prod(one["size"]) for one in found])
    assert check_run_texts(texts, pixels) == {}
    assert check_run_texts([], pixels[:0]) == {}


def test_damaged_texts_are_named_as_one_by_one():
    random = np.random.default_rng(1)
    texts, sizes = [], []
    for mask in masks(400):
        text = bytearray(encode_mask(mask)["counts"].encode())
        if random.random() < 0.7:
            text[random.integers(len(text))] = random.integers(40, 120)
        if random.random() < 0.2:
            del text[random.integers(len(text)) :]
        texts.append(bytes(text))
        sizes.append(mask.shape)
    texts += [b"", b"o" * 9, b"PPPPPPP0", b"\xff", b"52", b"0" * 7]
    sizes += [(4, 4)] * 6

    found = check_run_texts(texts, np.array([height * width for height, width in sizes]))

    expected = one_by_one(texts, sizes)
    assert 100 < len(expected) < len(texts)
    assert found == expected


@pytest.mark.parametrize("text", [b"", b"P"])
def test_a_single_broken_text(text):
    assert list(check_run_texts([text], np.array([16]))) == [0]

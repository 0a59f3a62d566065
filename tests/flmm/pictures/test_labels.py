"""Labels of masks: short, numbered where needed, inside the picture and apart."""

from itertools import combinations

import pytest
from flmm.pictures.labels import (
    fit_lines,
    label_size,
    list_of_labels,
    mask_labels,
    place_labels,
    title_lines,
)


def test_labels_are_numbered_where_they_must_be_told_apart():
    def texts(*phrases):
        return [label.text for label in mask_labels(phrases, colours=3)]

    assert texts("a cat", "a dog") == ["a cat", "a dog"]
    assert texts("a cat", "a cat") == ["1 a cat", "2 a cat"]
    assert texts("a", "b", "c", "d") == ["1 a", "2 b", "3 c", "4 d"]
    assert texts("a cat", "a 🐸") == ["1 a cat", "2"]


def test_long_texts_are_cut():
    (label,) = mask_labels(["a very long phrase " * 20], colours=6)
    assert label.text.count("\n") == 1
    assert label.text.endswith("…")
    assert all(len(line) <= 24 for line in label.text.split("\n"))
    assert title_lines("a word " * 200, 38).count("\n") == 2
    assert title_lines("a 🐸 sits", 38) == "a … sits"
    assert title_lines("🐸 🐸", 38) == ""
    assert fit_lines("x" * 30, 24, 2) == "x" * 24 + "\n" + "x" * 6
    assert list_of_labels(["a cat", "a 🐸", "a dog"], [1, 2], 44) == "3 a dog"


@pytest.mark.parametrize("count", [1, 2, 8, 90])
def test_labels_lie_apart_and_inside(count):
    size = label_size("12 a cat", 2.0)
    places = place_labels([(50, 20)] * count, [size] * count, picture=(100, 60))
    found = [place for place in places if place is not None]
    assert places[0] == (50, 20)
    assert len(found) >= min(count, 8)
    assert count < 90 or len(found) < 90
    for (a, b), (c, d) in combinations(found, 2):
        assert abs(a - c) >= size[0] - 1e-9 or abs(b - d) >= size[1] - 1e-9
    for x, y in found:
        assert size[0] / 2 <= x <= 100 - size[0] / 2
        assert size[1] / 2 <= y <= 60 - size[1] / 2


def test_a_label_wider_than_the_picture_stays_in_its_middle():
    assert place_labels([(3, 4)], [(30, 2)], picture=(10, 10)) == [(5, 4)]

"""Sides of the picture in phrases."""

import pytest
from flmm.text.sides import side_of


@pytest.mark.parametrize(
    ("phrase", "side"),
    [
        ("a frog", (0, 0)),
        ("a frog top left", (-1, -1)),
        ("a frog middle right", (1, 0)),
        ("the man on the left", (-1, 0)),
        ("Left-hand side car", (-1, 0)),
        ("the rightmost of three dogs", (1, 0)),
        ("a cup in the top right corner of the picture", (1, -1)),
        ("the dog at the bottom of the photo", (0, 1)),
        ("upper window, left", (-1, -1)),
        ("lower shelf", (0, 1)),
        # Both ends of an axis say nothing about it.
        ("the left and the right shoe", (0, 0)),
        # Where a thing is next to another one does not say where it is in the picture.
        ("a frog left of a pig", (0, 0)),
        ("the cup on top of the right shelf", (0, 0)),
        ("the left cup on top of the shelf", (-1, 0)),
        ("the bottom of the tree", (0, 0)),
        # Body parts, clothes and other meanings.
        ("her left hand", (0, 0)),
        ("the dog right behind the car", (0, 0)),
        ("a woman in a red top", (0, 0)),
        ("a woman in a red top on the right", (1, 0)),
        ("a bird in the top left", (-1, -1)),
        ("an upright leftover", (0, 0)),
    ],
)
def test_the_side_that_a_phrase_names(phrase, side):
    assert side_of(phrase) == side

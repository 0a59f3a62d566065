"""Repeat factors against a slow version."""

import math

import numpy as np
from clim_data.streams.repeats import repeat_factors


def slow(owners, labels, images, threshold):
    classes = [{label for owner, label in zip(owners, labels) if owner == i} for i in range(images)]
    share = {label: sum(label in some for some in classes) / images for label in set(labels)}
    return [
        math.ceil(max([1, *(math.sqrt(threshold / share[label]) for label in some)]))
        for some in classes
    ]


def test_factors_are_those_of_the_rarest_class_of_an_image():
    noise = np.random.default_rng(3)
    owners = noise.integers(0, 40, 200)
    labels = (noise.random(200) ** 4 * 30).astype(np.int64)
    found = repeat_factors(owners, labels, 40, 0.3)
    assert found.tolist() == slow(owners.tolist(), labels.tolist(), 40, 0.3)
    assert found.max() > 1
    assert found.min() == 1


def test_whole_factors_are_not_rounded_up_and_no_box_is_no_repetition():
    # Class 1 is on one of four images: sqrt(1 / 0.25) = 2.
    owners, labels = np.array([0, 1, 2, 3, 3]), np.array([0, 0, 0, 0, 1])
    assert repeat_factors(owners, labels, 4, 1.0).tolist() == [1, 1, 1, 2]
    nothing = np.array([], dtype=np.int64)
    assert repeat_factors(nothing, nothing, 2, 0.1).tolist() == [1, 1]

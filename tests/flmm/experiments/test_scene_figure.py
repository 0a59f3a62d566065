"""The quick start's picture."""

import numpy as np
import pytest
from flmm.experiments.scene_figure import GroundedScene, mean_iou, scenes_picture
from PIL import Image


def scene(phrases, *, found=True):
    truth = np.zeros((len(phrases), 24, 24), bool)
    for index in range(len(phrases)):
        truth[index, 2:8, 8 * index : 8 * index + 6] = True
    logits = np.where(truth, 2.0, -1.0) if found else np.full(truth.shape, -1.0)
    speckles = np.random.default_rng(0).normal(size=truth.shape)
    heat = np.random.default_rng(1).random((len(phrases), 3, 3))
    return GroundedScene(
        Image.new("RGB", (24, 24)), tuple(phrases), "a cat .", heat, truth, speckles, logits
    )


def test_a_row_for_each_scene_and_a_map_for_each_phrase():
    figure = scenes_picture([scene(["a cat", "two dogs", "a cow"]), scene(["a cow"], found=False)])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:6] == [
        "true masks",
        "attention: a cat",
        "attention: two dogs",
        "attention: a cow",
        "untrained heads",
        "trained heads",
    ]
    assert titles[6:] == [
        "true masks",
        "attention: a cow",
        "",
        "",
        "untrained heads",
        "trained heads",
    ]
    beneath = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert beneath.count("LMM says: a cat .") == 2
    assert "mean IoU 100 %" in beneath
    assert "mean IoU 0 %" in beneath
    figure.canvas.draw()


def test_mean_iou():
    truth = np.zeros((3, 4, 4), bool)
    truth[0, :2] = truth[1, 0] = True
    found = np.zeros_like(truth)
    found[0, 1:3] = True
    assert mean_iou(found, truth) == pytest.approx((4 / 12 + 0 + 1) / 3)

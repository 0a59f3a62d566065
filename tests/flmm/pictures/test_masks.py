"""Drawn masks: many phrases, long answers and letters without a font, without a warning."""

import numpy as np
from flmm.pictures.masks import grounding_figure
from PIL import Image


def drawn(phrases, tmp_path, title=""):
    image = Image.new("RGB", (90, 60))
    masks = np.zeros((len(phrases), 60, 90), dtype=bool)
    masks[:, 20:40, 30:60] = True
    figure = grounding_figure(image, masks, phrases, title=title)
    figure.savefig(tmp_path / "a.png")  # any warning is an error
    return figure.axes[0]


def test_phrases_without_a_font_are_numbers(tmp_path):
    axis = drawn(["a cat", "a 🐸", "ok"], tmp_path, title="🐸")
    assert [text.get_text() for text in axis.texts] == ["1 a cat", "2", "3 ok"]
    assert axis.get_title() == ""


def test_many_things_on_one_place_leave_the_picture_visible(tmp_path):
    phrases = [f"a thing {number}" for number in range(90)]
    axis = drawn(phrases, tmp_path, title="I see " + ", ".join(phrases))
    texts = [text.get_text() for text in axis.texts]
    assert texts[0] == "1 a thing 0"
    assert texts[89] == "90"
    assert axis.get_title().count("\n") == 2
    assert axis.get_xlabel().count("\n") == 1
    assert axis.get_xlabel().endswith("…")
    height = axis.get_window_extent().height / axis.figure.bbox.height
    assert height > 0.5

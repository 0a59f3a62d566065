"""Names of boxes in drawings: inside the picture at every size, in letters that the font has."""

import numpy as np
import pytest
from clim_models.pipelines import labels
from clim_models.pipelines.labels import fitted_text, label_font, readable_label, write_label
from PIL import Image

GROUND = (0, 114, 178)
NAME = "a name that is far longer than the picture is wide, ærøskøbing"


def extent_of_label(size: tuple[int, int], box: tuple[float, float, float, float]) -> list[int]:
    """Left, top, right, bottom of the ground that a label covers, in a picture with a border."""
    border = 50
    image = Image.new("RGB", size)
    write_label(image, box, NAME, "0.50", ground=GROUND)
    pixels = np.asarray(image)
    y, x = np.nonzero((pixels == GROUND).all(-1))
    assert len(x) > border  # something is there
    return [x.min(), y.min(), x.max(), y.max()]


@pytest.mark.parametrize("size", [(192, 192), (64, 64), (1200, 40), (40, 1200), (640, 480)])
@pytest.mark.parametrize(
    "place", [(0, 0, 1, 1), (0.9, 0, 1, 0.2), (0, 0.95, 0.1, 1), (0.95, 0.97, 1, 1), (-1, -1, 2, 2)]
)
def test_a_label_lies_inside_its_picture(size, place):
    width, height = size
    box = (place[0] * width, place[1] * height, place[2] * width, place[3] * height)
    left, top, right, bottom = extent_of_label(size, box)
    # The ground has both ends, so nothing of it was cut off at a side.
    assert left >= 0
    assert right <= width - 1
    assert bottom - top >= 10
    assert bottom <= height - 1


def test_the_name_is_shortened_and_the_score_stays():
    font = label_font(11)
    text = fitted_text(NAME, "0.50", font, 100)
    assert text.startswith("a name")
    assert text.endswith("… 0.50")
    assert font.getlength(text) <= 100
    assert fitted_text("cat", "0.50", font, 500) == "cat 0.50"
    assert fitted_text("cat", "0.50", font, 20) == "c…"


def test_letters_that_the_font_lacks_become_the_number_of_the_class():
    assert readable_label("ærø 5 €", 3) == "ærø 5 €"
    assert readable_label("\U0001f436", 3) == "#3"
    assert readable_label("line\nbreak", 3) == "line\nbreak"
    assert readable_label("\x07", 3) == "#3"


def test_pillow_has_a_font_without_matplotlib(monkeypatch):
    monkeypatch.setattr(labels, "_font_file", lambda: None)
    label_font.cache_clear()
    labels._has_letter.cache_clear()
    try:
        assert readable_label("Koeln", 0) == "Koeln"
        assert readable_label("カメラ", 0) == "#0"
    finally:
        label_font.cache_clear()
        labels._has_letter.cache_clear()

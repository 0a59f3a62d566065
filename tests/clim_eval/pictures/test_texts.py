"""Texts of users in figures: no formulas, fonts that have the letters, colours that can be read."""

import numpy as np
import pytest
from clim_eval.pictures import PALETTE, can_draw, readable_on, text_options, texts
from clim_eval.pictures.similarity import similarity_figure


@pytest.fixture
def fonts(monkeypatch):
    """A system with one more font, which has Chinese letters."""
    chinese = {ord(letter) for letter in "一只猫"}
    monkeypatch.setattr(texts, "_letters_of_system", lambda: {"Some Font": frozenset(chinese)})
    texts._font_of.cache_clear()
    yield
    texts._font_of.cache_clear()


def test_letters_come_from_a_font_that_has_them(fonts):
    assert text_options("a cat")["fontfamily"] == ["DejaVu Sans"]
    assert text_options("a cat", "一只猫")["fontfamily"] == ["DejaVu Sans", "Some Font"]
    assert can_draw("a café, naïve – “quoted” $5_x^2 \\ %")
    assert can_draw("一只 猫")
    assert not can_draw("a 🐸")
    assert not can_draw("沙发")
    assert not can_draw("a\x07cat")
    assert can_draw("")


def test_scripts_that_need_shaping(monkeypatch):
    for has_shaping in (True, False):
        monkeypatch.setattr(texts, "_has_shaping", lambda answer=has_shaping: answer)
        assert can_draw("قطة") is has_shaping


@pytest.mark.parametrize("text", ["a $5 and $6 bill", r"the $\frac{1$ sign", "a_b^c"])
def test_a_dollar_begins_no_formula(text, tmp_path):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    figure = similarity_figure(image, np.zeros((1, 2, 2)), [text], title=text)
    figure.savefig(tmp_path / "a.png")
    assert figure.axes[1].get_title() == text


def test_contrast():
    assert [readable_on(colour) for colour in PALETTE[:3]] == ["white", "black", "black"]
    assert (readable_on("#000000"), readable_on("#FFFFFF")) == ("white", "black")

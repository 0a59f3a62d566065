import io

import numpy as np
import pytest
import torch
from clim_eval.pictures import files
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.pictures.named_boxes import NamedBoxes
from clim_eval.pictures.similarity import (
    MapRow,
    comparison_figure,
    row_figure,
    similarity_figure,
)
from clim_eval.pictures.tradeoff import tradeoff_figure, words_of
from PIL import Image


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=60, format="png")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def test_similarity_panels_show_the_map_its_peak_and_the_box():
    image = torch.full((3, 40, 60), 128, dtype=torch.uint8)
    maps = np.zeros((2, 4, 6), dtype=np.float32)
    maps[0, 1, 1], maps[1, 3, 5] = 1, 0.5
    boxes = np.array([[0, 0, 0.5, 0.5], [np.nan] * 4])
    peaks = np.array([[0.25, 0.375], [11 / 12, 7 / 8]])
    figure = similarity_figure(
        image,
        maps,
        ["a cat", "a dog"],
        boxes=boxes,
        peaks=peaks,
        scores=[0.5, 0.25],
        title="two animals",
    )
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["image", "a cat", "a dog"]
    assert [axis.get_xlabel() for axis in panels[1:]] == ["cosine 0.500", "cosine 0.250"]
    np.testing.assert_allclose(panels[1].patches[-1].get_bbox().extents, [-0.5, -0.5, 29.5, 19.5])
    assert not panels[2].patches  # a row of nan has no frame
    np.testing.assert_allclose(panels[1].lines[0].get_xydata(), [[14.5, 14.5]])
    drawn = [axis.images[1] for axis in panels[1:]]
    np.testing.assert_allclose(drawn[0].get_array(), maps[0])
    # One scale: half of the largest similarity is half as strong, whatever the panel.
    assert {image.get_clim() for image in drawn} == {(0.0, 1.0)}


def test_maps_have_one_hue():
    maps = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 4, 6)
    image = np.full((40, 60, 3), 200, np.uint8)
    pixels = rendered(similarity_figure(image, maps, ["x"]))
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (blue - red > 60).any()
    assert not (red - blue > 5).any()


def test_models_are_compared_on_one_scale():
    image = np.zeros((8, 8, 3), np.uint8)
    rows = {"before": MapRow(np.eye(4)[None]), "after": MapRow(3 * np.eye(4)[None])}
    figure = comparison_figure(image, rows, ["x"], title="t")
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["before", "x", "after", "x"]
    assert len({panels[number].images[1].get_clim() for number in (1, 3)}) == 1
    with pytest.raises(ValueError, match="no models to compare"):
        comparison_figure(image, {}, ["x"])
    with pytest.raises(ValueError, match="1 maps for 2 texts"):
        comparison_figure(image, rows, ["x", "y"])


def test_named_boxes_are_right_or_wrong_by_sign_and_colour():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    row = MapRow(np.eye(4)[None], named=NamedBoxes(boxes, ["a cat", "a dog"], [True, False]))
    figure = comparison_figure(np.zeros((8, 8, 3), np.uint8), {"m": row}, ["x"])
    axis = figure.axes[0]
    assert axis.get_title() == "m: 1 of 2 named"
    texts = axis.texts
    assert [text.get_text() for text in texts] == ["✓ a cat", "✗ a dog"]
    colours = [text.get_bbox_patch().get_facecolor() for text in texts]
    assert colours[0] != colours[1]
    with pytest.raises(ValueError, match="1 names for 2 boxes"):
        NamedBoxes(boxes, ["a cat"])


def test_mask_outline_runs_along_the_cells():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 1:3, 1] = True
    row = MapRow(np.eye(4)[None], masks=mask)
    figure = row_figure(np.zeros((8, 8, 3), np.uint8), row, ["x"])
    segments = np.concatenate(figure.axes[1].collections[0].get_segments())
    assert segments[:, 0].min() == 1.5  # cells of 2 px, frame from -0.5
    assert segments[:, 0].max() == 3.5
    assert segments[:, 1].min() == 1.5
    assert segments[:, 1].max() == 5.5
    assert len(figure.axes[1].collections[0].get_segments()) == 6  # the perimeter of a 1 x 2 block
    rendered(figure)


def test_files_are_small_enough_for_a_page(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    figure = similarity_figure(noise, np.random.default_rng(1).random((1, 9, 27)), ["a"])
    monkeypatch.setattr(files, "MAX_WIDTH", 200)
    monkeypatch.setattr(files, "MAX_BYTES", 12_000)
    files.write_png(tmp_path / "a.png", figure)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width <= 200
    assert (tmp_path / "a.png").stat().st_size <= 12_000


@pytest.mark.parametrize(("name", "kind"), [("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_a_figure_has_the_format_of_its_name(tmp_path, name, kind):
    figure = similarity_figure(np.zeros((8, 5, 3), np.uint8), np.zeros((1, 2, 2)), ["a"])
    files.write_figure(tmp_path / name, figure)
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
        assert picture.width > 100


def test_constant_maps_and_many_texts_can_be_drawn():
    texts = [
        f"text number {i} which is long enough to be wrapped into lines and cut" for i in range(6)
    ]
    figure = similarity_figure(np.zeros((8, 5, 3), np.uint8), np.zeros((6, 2, 2)), texts)
    assert sum(axis.get_visible() and bool(axis.get_title()) for axis in figure.axes) == 7
    rendered(figure)


def test_bars_have_the_heights_of_the_metrics():
    arms = {"start": {"top1": 0.25, "i2t.R@1": 0.5}, "end": {"top1": 0.75}}
    figure = accuracy_bars(
        arms, names={"top1": "images"}, errors={"end": {"top1": 0.02}}, title="t"
    )
    axis = figure.axes[0]
    heights = [
        [bar.get_height() for bar in group]
        for group in axis.containers
        if hasattr(group, "datavalues")
    ]
    np.testing.assert_allclose(heights, [[25, 50], [75, np.nan]])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["images", "i2t\nR@1"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["start", "end"]
    rendered(figure)


def test_mistakes_are_told():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="2 maps for 1 texts"):
        similarity_figure(image, np.zeros((2, 2, 2)), ["a"])
    with pytest.raises(ValueError, match="boxes"):
        similarity_figure(image, np.zeros((1, 2, 2)), ["a"], boxes=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="uint8"):
        similarity_figure(image.astype(float), np.zeros((1, 2, 2)), ["a"])
    with pytest.raises(ValueError, match="no arms"):
        accuracy_bars({})
    with pytest.raises(ValueError, match="top9"):
        accuracy_bars({"a": {"top1": 0.1}}, metrics=["top9"])


def test_a_trade_off_has_error_bars_where_there_are_several_runs():
    curve = {"0": (0.1, 0.7), "1": (0.3, 0.4)}
    figure = tradeoff_figure(
        {"a": curve}, x_name="x", y_name="y", errors={"a": {"1": (0.02, 0.05)}}
    )
    across, along = figure.axes[0].collections
    np.testing.assert_allclose(across.get_segments(), [[[28, 40], [32, 40]]])
    np.testing.assert_allclose(along.get_segments(), [[[30, 35], [30, 45]]])


def test_axes_of_a_trade_off_have_words_and_labels_stand_at_the_ends():
    assert words_of("regions.boxes.thing.mAcc1") == "naming regions, top-1 (boxes of things)"
    assert words_of("retrieval.t2i.R@1") == "retrieval, text to image, R@1"
    assert words_of("zeroshot.top1") == "naming whole images, top-1"
    assert words_of("mine") == "mine"
    curve = {"0": (0.1, 0.7), "0.5": (0.2, 0.6), "1": (0.3, 0.4)}
    figure = tradeoff_figure({"a": curve, "b": {**curve, "1": (0.2, 0.1)}}, x_name="x", y_name="y")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1", "1"]
    figure = tradeoff_figure({"": curve}, x_name="x", y_name="y", chosen={"": ["0.5"]})
    assert {text.get_text() for text in figure.axes[0].texts} == {"0", "0.5", "1"}

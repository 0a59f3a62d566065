import io

import numpy as np
import pytest
import torch
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.pictures.similarity import similarity_figure
from PIL import Image


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=60, format="png")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def test_similarity_panels_show_the_map_and_the_box():
    image = torch.full((3, 40, 60), 128, dtype=torch.uint8)
    maps = np.zeros((2, 4, 6), dtype=np.float32)
    maps[0, 1, 1] = maps[1, 3, 5] = 1
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    figure = similarity_figure(
        image, maps, ["a cat", "a dog"], boxes=boxes, scores=[0.5, 0.25], title="two animals"
    )
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["image", "a cat", "a dog"]
    assert [axis.get_xlabel() for axis in panels[1:]] == ["cosine 0.500", "cosine 0.250"]
    np.testing.assert_allclose(panels[2].patches[-1].get_bbox().extents, [29.5, 19.5, 59.5, 39.5])
    np.testing.assert_allclose(panels[1].images[1].get_array(), maps[0])
    pixels = rendered(figure)
    red = (pixels[..., 0] > 120) & (pixels[..., 2] < 60)  # the hot end of the colour map appears
    assert red.any()


def test_mask_outline_runs_along_the_cells():
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 1:3, 1] = True
    figure = similarity_figure(np.zeros((8, 8, 3), np.uint8), np.eye(4)[None], ["x"], masks=mask)
    segments = np.concatenate(figure.axes[1].collections[0].get_segments())
    assert segments[:, 0].min() == 1.5  # cells of 2 px, frame from -0.5
    assert segments[:, 0].max() == 3.5
    assert segments[:, 1].min() == 1.5
    assert segments[:, 1].max() == 5.5
    assert len(figure.axes[1].collections[0].get_segments()) == 6  # the perimeter of a 1 x 2 block
    rendered(figure)


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

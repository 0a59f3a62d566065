"""Names of boxes in figures stay inside their picture."""

import numpy as np
import pytest
from clim_eval.pictures import NamedBoxes
from clim_eval.pictures.detections import detection_figure
from clim_eval.pictures.similarity import MapRow, row_figure
from matplotlib.backends.backend_agg import FigureCanvasAgg

NAMES = ["a crossing with a long name, and more", "зонт", "Ærøskøbing", "cat"]
PLACES = np.array([[0.8, 0, 1, 0.3], [0, 0.95, 0.1, 1], [0.97, 0.5, 1, 0.6], [0, 0, 1, 1]])
SIZES = [(192, 192), (64, 64), (40, 1200), (1200, 40), (480, 640)]


def assert_labels_inside(figure, axis) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    frame = axis.bbox
    assert len(axis.texts) == len(NAMES)
    for text in axis.texts:
        extent = text.get_window_extent(renderer)
        assert extent.x0 >= frame.x0 - 1 or text.get_text().endswith("…")
        assert extent.x1 <= frame.x1 + 1 or text.get_text().endswith("…")
        # A picture that is lower than its letters has them in its middle.
        assert abs(extent.y0 + extent.y1 - frame.y0 - frame.y1) / 2 <= max(frame.height / 2, 1)


@pytest.mark.parametrize("size", SIZES)
def test_labels_of_detections_lie_inside(size):
    height, width = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    boxes = PLACES * [width, height, width, height]
    figure = detection_figure(image, boxes, range(4), NAMES, scores=[0.5] * 4)
    assert_labels_inside(figure, figure.axes[0])


@pytest.mark.parametrize("size", SIZES)
def test_names_of_boxes_in_panels_lie_inside(size):
    image = np.zeros((*size, 3), dtype=np.uint8)
    row = MapRow(np.zeros((1, 2, 2)), named=NamedBoxes(PLACES, NAMES, [True, False] * 2))
    figure = row_figure(image, row, ["cat"])
    assert_labels_inside(figure, figure.axes[0])
    first = [text.get_position() for text in figure.axes[0].texts]
    assert_labels_inside(figure, figure.axes[0])  # drawn again, nothing moves
    np.testing.assert_allclose(first, [text.get_position() for text in figure.axes[0].texts])

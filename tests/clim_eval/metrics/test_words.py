import pytest
import torch
import torch.nn.functional as F
from clim_eval.metrics.words import naming_hits, pointing_chance, pointing_hits


def points(values, boxes):
    """Look at the peak of one map (h, w) by hand."""
    height, width = values.shape
    best, place = -float("inf"), None
    for row in range(height):
        for column in range(width):
            if values[row, column] > best:
                best, place = values[row, column], (row, column)
    y, x = (place[0] + 0.5) / height, (place[1] + 0.5) / width
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


@pytest.fixture(params=range(4))
def scene(request):
    generator = torch.Generator().manual_seed(request.param)
    maps = torch.rand(3, 5, 7, generator=generator)
    corners = torch.rand(6, 2, 2, generator=generator).sort(dim=1).values.reshape(6, 4)
    return maps, corners, torch.tensor([0, 1, 2, 2, 1, 2])


def test_pointing_equals_a_loop_over_words(scene):
    maps, boxes, words = scene
    expected = [points(maps[w], boxes[words == w].tolist()) for w in range(3)]
    assert pointing_hits(maps, boxes, words).tolist() == expected


def test_chance_is_the_share_of_positions_that_would_be_right(scene):
    maps, boxes, words = scene
    for word, chance in enumerate(pointing_chance(maps, boxes, words).tolist()):
        hits = 0
        for position in range(35):
            values = torch.zeros(35)
            values[position] = 1
            hits += points(values.view(5, 7), boxes[words == word].tolist())
        assert chance == pytest.approx(hits / 35)


def test_of_equal_values_the_first_is_the_peak():
    flat = torch.zeros(1, 2, 2)
    first, last = torch.tensor([[0.0, 0, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 1, 1]])
    assert pointing_hits(flat, first, torch.tensor([0])).tolist() == [True]
    assert pointing_hits(flat, last, torch.tensor([0])).tolist() == [False]


def test_a_box_is_named_by_the_most_similar_word_and_ties_are_wrong():
    texts = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    features = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0], [1.0, 0.1]]), dim=1)
    assert naming_hits(features, texts, torch.tensor([0, 1, 1])).tolist() == [True, True, False]
    same = torch.ones(2, 2)
    assert naming_hits(same[:1], same, torch.tensor([0])).tolist() == [False]

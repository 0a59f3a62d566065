import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_eval.evaluators.words import WordsInScenes


@pytest.fixture(scope="module")
def model(tiny_towers):
    return tiny_towers.build_vit()


@pytest.fixture(scope="module")
def rows():
    return torch.randn(8, 24, generator=torch.Generator().manual_seed(8))


@torch.no_grad()
def slow_answers(model, rows, data):
    """Answer scene by scene and word by word."""
    texts = F.normalize(rows, dim=1)
    points, named = [], {"boxes": [], "boxes_attention": [], "crops": []}
    for sample in (data[i] for i in range(len(data))):
        if len(sample.labels) == 0:
            continue
        pixels = model.normalize_pixels(sample.image[None])
        dense = model.encode_dense(pixels)[0]
        words = sorted(set(sample.labels.tolist()))
        for word in words:
            values = torch.einsum("c,chw->hw", texts[word], dense)
            place = int(values.argmax())
            x = (place % values.shape[1] + 0.5) / values.shape[1]
            y = (place // values.shape[1] + 0.5) / values.shape[0]
            own = sample.boxes[sample.labels == word].tolist()
            points.append(any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in own))

        for n, label in enumerate(sample.labels.tolist()):
            box = [sample.boxes[n : n + 1]]
            features = {
                "boxes": model.encode_boxes(pixels, box),
                "boxes_attention": model.encode_boxes(pixels, box, mode="attention"),
                "crops": model.encode_image(model.normalize_pixels(sample.crops[n : n + 1])),
            }
            for name, feature in features.items():
                scores = [float(feature[0] @ texts[word]) for word in words]
                best = words[int(np.argmax(scores))]
                named[name].append(best == label and scores.count(max(scores)) == 1)
    return points, named


def test_equals_a_loop_over_scenes(toy, model, rows):
    data = toy.Regions(12)
    found = WordsInScenes(model, rows, crops=True, batch_size=5).run(data)
    points, named = slow_answers(model, rows, data)
    assert found["pointing"] == pytest.approx(np.mean(points))
    for name, hits in named.items():
        assert found[f"naming.{name}"] == pytest.approx(np.mean(hits)), name


def test_classes_are_counted_apart_with_the_same_choices(toy, model, rows):
    evaluator = WordsInScenes(model, rows, attention=False, batch_size=5)
    scenes = evaluator.collect(toy.Regions(12))
    both = evaluator.summarize(scenes)
    parts = [evaluator.summarize(scenes, labels) for labels in (range(4), range(4, 8))]
    sizes = [sum(int(np.isin(s.labels, p).sum()) for s in scenes) for p in (range(4), range(4, 8))]
    mean = sum(part["naming.boxes"] * n for part, n in zip(parts, sizes, strict=True)) / sum(sizes)
    assert both["naming.boxes"] == pytest.approx(mean)
    assert set(both) == {"pointing", "pointing.chance", "naming.chance", "naming.boxes"}


def test_a_scene_with_one_word_is_always_named_right(toy, model, rows):
    class OneBox(toy.Regions):
        def __getitem__(self, index):
            return super().__getitem__(5 * index + 1)

    found = WordsInScenes(model, rows, batch_size=2).run(OneBox(3))
    assert found["naming.chance"] == found["naming.boxes"] == 1


def test_scenes_without_boxes_are_an_error(toy, model, rows):
    with pytest.raises(ValueError, match="no scene has a box"):
        WordsInScenes(model, rows).run(toy.Regions(1))

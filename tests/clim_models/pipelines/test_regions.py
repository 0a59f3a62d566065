"""Names of boxes and maps of labels: against the model's own calls, one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_models.pipelines import DensePipeline, PipelineOptions, RegionPipeline
from clim_models.pipelines.reading import read_fitted
from clim_models.text import EmbeddedVocabulary, Vocabulary
from tiny_towers import build_vit

WORDS = {"cat": {"not": ["lynx"]}, "dog": {}, "cow": {}}


@pytest.fixture(scope="module")
def model():
    return build_vit()


@pytest.fixture(scope="module")
def vocabulary():
    rows = F.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    return EmbeddedVocabulary(Vocabulary.of(WORDS), rows[:3], rows[3:])


def pictures(count=5):
    generator = np.random.default_rng(0)
    sizes = [(40, 64), (64, 40), (40, 64), (50, 50), (33, 90)]
    return [generator.integers(0, 256, (*sizes[n % 5], 3), dtype=np.uint8) for n in range(count)]


def boxes_in(picture, count):
    height, width = picture.shape[:2]
    generator = np.random.default_rng(count)
    corners = generator.random((count, 2)) * 0.4
    sides = 0.2 + generator.random((count, 2)) * 0.35
    return np.concatenate([corners, corners + sides], 1) * [width, height, width, height]


@pytest.mark.parametrize("features", ["boxes", "boxes_value", "boxes_attention"])
def test_boxes_are_named_as_the_model_names_them(model, vocabulary, features):
    options = PipelineOptions(batch_size=2, image_px=64, features=features)
    name = RegionPipeline(model, vocabulary, options)
    photos = pictures()
    boxes = [boxes_in(photo, number) for number, photo in enumerate(photos)]

    found = name(photos, boxes)

    mode = {"boxes": {}, "boxes_value": {"readout": "value"}}.get(features, {"mode": "attention"})
    for photo, own, result in zip(photos, boxes, found, strict=True):
        assert result.size == photo.shape[:2]
        assert len(result) == len(own)
        if not len(own):
            continue
        read = read_fitted((0, photo), 64, model.stride)
        height, width = photo.shape[:2]
        relative = torch.tensor(own / [width, height, width, height], dtype=torch.float32)
        with torch.no_grad():
            vectors = model.encode_boxes(
                model.normalize_pixels(read.pixels[None]), [relative], **mode
            )
        cosines = vectors @ vocabulary.embeddings.T
        rejected = (vectors @ vocabulary.rejects.T)[:, 0]
        logits = torch.cat([cosines, rejected[:, None]], 1) * model.logit_scale.exp().item()
        for row, region in enumerate(result):
            best = int(cosines[row].argmax())
            lost = bool(rejected[row] > cosines[row].max())
            assert region.label == (None if lost else ("cat", "dog", "cow")[best])
            assert region.score == pytest.approx(float(logits.softmax(1)[row, best]), abs=1e-5)
            assert region.cosine == pytest.approx(float(cosines[row, best]), abs=1e-5)
            np.testing.assert_allclose(region.box, own[row], rtol=1e-5)


def test_a_list_is_one_by_one_in_its_order(model, vocabulary):
    photos = pictures()
    for kind in (RegionPipeline, DensePipeline):
        many = kind(model, vocabulary, PipelineOptions(batch_size=3, image_px=48))(photos)
        one = kind(model, vocabulary, PipelineOptions(batch_size=1, image_px=48))
        for number, (photo, result) in enumerate(zip(photos, many, strict=True)):
            alone = one(photo)
            assert result.name == f"picture {number}"
            assert result.size == alone.size == photo.shape[:2]
            assert [region.label for region in result] == [region.label for region in alone]
            np.testing.assert_allclose(
                [region.score for region in result], [region.score for region in alone], atol=1e-5
            )
        assert isinstance(kind(model, vocabulary, PipelineOptions())([photos[0]]), list)


def test_the_mode_of_the_model_stays_and_nothing_is_recorded(model, vocabulary):
    model.train()
    try:
        result = DensePipeline(model, vocabulary, PipelineOptions())(pictures(1)[0])
        assert model.training
    finally:
        model.eval()
    again = DensePipeline(model, vocabulary, PipelineOptions())(pictures(1)[0])
    assert np.array_equal(result.maps, again.maps)
    assert all(parameter.grad_fn is None for parameter in model.parameters())


def test_maps_peaks_and_regions_fit_the_picture(model, vocabulary):
    photo = pictures(1)[0]
    result = DensePipeline(model, vocabulary, PipelineOptions(image_px=64))(photo)
    read = read_fitted((0, photo), 64, model.stride)
    with torch.no_grad():
        dense = model.encode_dense(model.normalize_pixels(read.pixels[None]))[0]
    expected = torch.einsum("kc,chw->khw", vocabulary.embeddings, dense)
    np.testing.assert_allclose(result.maps, expected.numpy(), atol=1e-5)
    for values, (x, y) in zip(result.maps, result.peaks, strict=True):
        row, column = int(y / 40 * values.shape[0]), int(x / 64 * values.shape[1])
        assert values[row, column] == values.max()
    for region in result:
        x, y = result.peaks[region.class_id]
        x0, y0, x1, y1 = region.box
        assert x0 < x < x1
        assert y0 < y < y1
    scores = [region.score for region in result]
    assert scores == sorted(scores, reverse=True)


def test_regions_that_were_looked_for_have_labels_and_no_doubles(model, vocabulary):
    result = RegionPipeline(model, vocabulary, PipelineOptions(image_px=64))(pictures(1)[0])
    assert all(region.label is not None for region in result)
    least = max(region.score for region in result)
    options = PipelineOptions(image_px=64, min_score=least)
    assert len(RegionPipeline(model, vocabulary, options)(pictures(1)[0])) == 1


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0, 0, 1)], "pass \\(n, 4\\) rows"),
        ([(5, 0, 5, 9)], "corners in pixels"),
        ([(0, 0, 400, 9)], "in pixels of its 64 x 40"),
        ([(0, 0, float("nan"), 9)], "corners in pixels"),
        ([(0, 0, "a", 9)], "pass \\(n, 4\\) numbers"),
        ([None], "have shape"),
        ({"a": 1}, "pass \\(n, 4\\) numbers"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(model, vocabulary, boxes, message):
    name = RegionPipeline(model, vocabulary, PipelineOptions(image_px=32))
    with pytest.raises(ValueError, match=message):
        name(pictures(1)[0], boxes)


def test_pictures_and_lists_of_boxes_are_as_many(model, vocabulary):
    name = RegionPipeline(model, vocabulary, PipelineOptions(image_px=32))
    box = [(0, 0, 9, 9)]
    with pytest.raises(ValueError, match="no boxes for picture 1"):
        name(pictures(2), [box])
    with pytest.raises(ValueError, match="more pictures than pictures"):
        name(pictures(2), [box] * 3)


@pytest.mark.parametrize("features", ["boxes", "boxes_value", "boxes_attention"])
def test_a_picture_without_boxes_has_no_regions(model, vocabulary, features):
    options = PipelineOptions(image_px=32, features=features)
    result = RegionPipeline(model, vocabulary, options)(pictures(1)[0], boxes=[])
    assert len(result) == 0
    assert result.size == (40, 64)

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_data.pixels import box_of_mask
from clim_eval.pictures.locate import (
    best_region,
    encode_texts,
    input_size,
    locate_texts,
    otsu_threshold,
)


def test_otsu_equals_trying_every_split():
    values = np.concatenate(
        [np.random.default_rng(0).normal(0, 1, 40), np.random.default_rng(1).normal(5, 1, 15)]
    )

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return (
            len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0
        )

    assert otsu_threshold(values) == max(values, key=between)


def test_best_region_is_the_connected_part_with_the_peak():
    values = np.zeros((5, 6))
    values[1:3, 1:3] = 0.9
    values[2, 2] = 1.0
    values[4, 5] = 0.95  # as warm, but elsewhere
    values[3, 3] = 0.9  # touches by a corner only
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:3] = True
    np.testing.assert_array_equal(best_region(values), expected)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.ones((1, 1))])
def test_a_flat_map_still_has_a_region(values):
    assert best_region(values).sum() >= 1


@pytest.mark.parametrize(
    ("size", "px", "expected"),
    [((480, 640), 1024, (768, 1024)), ((10, 1000), 64, (16, 64)), ((30, 20), 48, (48, 32))],
)
def test_input_size_keeps_the_shape_on_the_grid(size, px, expected):
    assert input_size(size, px, 16) == expected


def test_located_scores_and_maps_are_the_models_cosines(tiny_towers):
    model = tiny_towers.build_vit()
    image = torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8)
    texts = torch.randn(3, 24)
    found = locate_texts(model, image, texts, image_px=48)
    assert found.maps.shape == found.masks.shape == (3, 4, 6)
    with torch.no_grad():
        resized = (
            F.interpolate(image[None].float(), (32, 48), mode="bicubic", antialias=True)
            .round()
            .clamp(0, 255)
        )
        pixels = model.normalize_pixels(resized.to(torch.uint8))
        cosines = torch.einsum(
            "nc,chw->nhw", F.normalize(texts, dim=1), model.encode_dense(pixels)[0]
        )
        pooled = model.encode_masks(pixels, [torch.from_numpy(found.masks)])
    np.testing.assert_allclose(
        found.maps, cosines.numpy(), atol=2e-2
    )  # a grey level more or less from resizing
    np.testing.assert_allclose(
        found.scores, (pooled * F.normalize(texts, dim=1)).sum(1).numpy(), atol=2e-2
    )
    for mask, box in zip(found.masks, found.boxes, strict=True):
        # The map has 4 rows and 6 columns.
        np.testing.assert_allclose(box * [6, 4, 6, 4], box_of_mask(mask))


def test_texts_are_encoded_as_they_are_or_through_prompts(toy):
    model = toy.ToyModel()
    plain = encode_texts(model, ["a Cat"])
    torch.testing.assert_close(plain, model.encode_text(model.tokenizer(["a Cat"])))
    both = encode_texts(model, ["Cat"], lambda text: [text, text.lower()])
    mean = model.encode_text(model.tokenizer(["Cat", "cat"])).mean(0)
    torch.testing.assert_close(both[0], F.normalize(mean, dim=0))

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_data.pixels import box_of_mask
from clim_eval.pictures.locate import _locations, encode_texts, locate_texts


def test_located_scores_and_maps_are_the_models_cosines(tiny_towers):
    model = tiny_towers.build_vit()
    image = torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8)
    texts = torch.randn(3, 24)
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.9], [0.4, 0.0, 1.0, 1.0]])
    found = locate_texts(model, image, texts, image_px=48, boxes=boxes)
    assert found.maps.shape == found.masks.shape == (3, 4, 6)
    with torch.no_grad():
        resized = (
            F.interpolate(image[None].float(), (32, 48), mode="bicubic", antialias=True)
            .round()
            .clamp(0, 255)
        )
        pixels = model.normalize_pixels(resized.to(torch.uint8))
        unit = F.normalize(texts, dim=1)
        cosines = torch.einsum("nc,chw->nhw", unit, model.encode_dense(pixels)[0])
        of_boxes = model.encode_boxes(pixels, [boxes]) @ unit.T
    # A grey level more or less from resizing.
    np.testing.assert_allclose(found.maps, cosines.numpy(), atol=2e-2)
    np.testing.assert_allclose(found.box_scores, of_boxes.numpy(), atol=2e-2)
    for values, score, contrast, (x, y) in zip(
        found.maps, found.scores, found.contrasts, found.peaks, strict=True
    ):
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert score == values.max()
        assert contrast == pytest.approx(values.max() - np.sort(values.ravel())[11])
        assert (x, y) == pytest.approx(((column + 0.5) / 6, (row + 0.5) / 4))
    for mask, box in zip(found.masks, found.boxes, strict=True):
        if mask.any():  # The map has 4 rows and 6 columns.
            np.testing.assert_allclose(box * [6, 4, 6, 4], box_of_mask(mask))
        else:
            assert np.isnan(box).all()


def test_a_region_that_covers_more_than_a_third_is_none():
    maps = torch.zeros(2, 4, 6)
    maps[0, 1, 1:3] = 1.0
    maps[1, :3] = 1.0
    found = _locations(maps, None)
    np.testing.assert_allclose(found.boxes[0], [1 / 6, 1 / 4, 3 / 6, 2 / 4])
    assert np.isnan(found.boxes[1]).all()
    assert not found.masks[1].any()


def test_the_size_of_the_training_is_the_default(tiny_towers):
    model = tiny_towers.build_vit()
    model.eval_px = 64
    image, texts = torch.zeros(3, 20, 40, dtype=torch.uint8), torch.randn(1, 24)
    assert locate_texts(model, image, texts).maps.shape == (1, 4, 8)


def test_texts_are_encoded_as_they_are_or_through_prompts(toy):
    model = toy.ToyModel()
    plain = encode_texts(model, ["a Cat"])
    torch.testing.assert_close(plain, model.encode_text(model.tokenizer(["a Cat"])))
    both = encode_texts(model, ["Cat"], lambda text: [text, text.lower()])
    mean = model.encode_text(model.tokenizer(["Cat", "cat"])).mean(0)
    torch.testing.assert_close(both[0], F.normalize(mean, dim=0))

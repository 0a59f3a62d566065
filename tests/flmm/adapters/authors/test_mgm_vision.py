"""Mini-Gemini's images and features against the original's; its windows against a slow version."""

import numpy as np
import pytest
import torch
from flmm.adapters.authors.mgm_vision import WindowAttention
from golden_lmms import CASES, golden_lmm, picture_of
from golden_pixels import same_pillow

MGM = [name for name in CASES if name.startswith("mgm")]


@same_pillow
@pytest.mark.parametrize("family", MGM)
def test_golden_images_and_features(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    vision = lmm.model.model.vision
    for name in case.meta["samples"]:
        prepared = lmm.family.prepare(picture_of(case, name))
        padded, _ = lmm.family.square.padded(picture_of(case, name))
        assert np.array_equal(np.asarray(padded), case.arrays[f"{name}__padded_image"])
        fine, step = case.strided(f"{name}__image_tensor_aux")
        pixels = prepared.pixel_values[None]
        torch.testing.assert_close(pixels[..., ::step, ::step], fine, atol=1e-5, rtol=1e-5)

        views, step = case.strided(f"{name}__image_tensor")
        found = vision.views(pixels)[..., ::step, ::step].flatten(0, 1)
        if vision.sizes.whole:  # the file has the whole image last, the sequence has it first
            found = torch.cat([found[1:], found[:1]])
        torch.testing.assert_close(found, views.flatten(0, -4), atol=1e-5, rtol=1e-5)

        with torch.no_grad():
            features = vision.project(pixels)
        expected = case.tensor(f"{name}__image_features")
        torch.testing.assert_close(features, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [name for name in MGM if "gemma" in name])
def test_golden_gemma_scales_features_as_its_words(golden, family):
    case = golden("forward", f"flmm/{family}")
    vision = golden_lmm(case).model.model.vision
    assert vision.scale == case.meta["llm_config"]["hidden_size"] ** 0.5
    pixels = torch.randn(1, 3, vision.sizes.aux_size, vision.sizes.aux_size)
    with torch.no_grad():
        torch.testing.assert_close(vision(pixels), vision.project(pixels) * vision.scale)


def test_a_query_attends_to_its_own_window_only():
    torch.manual_seed(0)
    attention = WindowAttention(6, 5)
    queries, maps = torch.randn(2, 9, 6), torch.randn(2, 5, 12, 12)
    found = attention(queries, maps)
    for item in range(2):
        for cell in range(9):
            row, column = divmod(cell, 3)
            window = maps[item, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            tokens = window.flatten(1).T  # (16, 5)
            scores = attention.key(tokens) @ attention.query(queries[item, cell]) / 6**0.5
            mined = scores.softmax(0) @ attention.value(tokens)
            torch.testing.assert_close(found[item, cell], queries[item, cell] + mined)

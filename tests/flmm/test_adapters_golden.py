"""Phrase features of the golden LMMs: what the original code computed from whole attention
matrices."""

import os

import pytest
import torch
from flmm.attention.capture import Capture, TokenRows
from golden_lmms import (
    CASES,
    cases_with,
    first_of,
    golden_lmm,
    merge_of,
    phrase_rows,
    precision_of,
    sample_of,
)

# Maps of unmerged tokens and of a maximum are not averaged: their rounding is not, either.
UNMERGED = {"atol": 2e-5, "rtol": 1e-4}


def names(case) -> list[str]:
    return list(case.meta["samples"])


def test_golden_cases_are_those_of_every_lmm_of_f_lmm():
    assert CASES
    if "CLIM_GOLDEN" not in os.environ:  # another set may have fewer
        assert {"llava", "llava_next", "deepseek_vl", "hpt", "mgm"} <= set(CASES)


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_maps_of_single_images(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    for name in names(case):
        (found,) = lmm([sample_of(case, name)], merge=merge_of(case))
        expected = case.tensor(f"{name}__mask_attentions")
        assert found.maps.shape == expected.shape
        assert lmm.map_channels == expected.shape[1]
        torch.testing.assert_close(found.maps, expected, **precision_of(case))


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_hidden_states(golden, family):
    """With the layer weights as they begin, all equal, the sum is a mean over layers."""
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    for name in names(case):
        (found,) = lmm([sample_of(case, name)])
        rows = phrase_rows(case, name)
        merged = case.tensor(f"{name}__merged_mask_ids")[rows]
        order = torch.cat([rows[merged == k] for k in range(len(found.lengths))])
        last = found.states[-1].norm(dim=-1)
        torch.testing.assert_close(
            last, case.tensor(f"{name}__last_hidden_l2")[order], atol=1e-4, rtol=1e-4
        )


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_batch_of_images_is_each_alone(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    samples = [sample_of(case, name) for name in names(case)]
    if len(samples) == 1:  # a second, shorter one: only its first phrase's words
        text = samples[0].text
        end = int((text.phrase_ids == 0).nonzero().max()) + 1
        short = type(text)(text.input_ids[:end], text.phrase_ids[:end], text.prompt_tokens)
        samples.append(type(samples[0])(samples[0].image, short))
    merge = merge_of(case)
    together = lmm(samples, merge=merge)
    for sample, found in zip(samples, together, strict=True):
        (alone,) = lmm([sample], merge=merge)
        torch.testing.assert_close(found.maps, alone.maps, **precision_of(case))
        torch.testing.assert_close(found.states, alone.states, atol=1e-4, rtol=1e-4)


@pytest.mark.device
@pytest.mark.parametrize("family", cases_with("merge_max__mask_attentions"))
def test_golden_merge_max(golden, family):
    case = golden("forward", f"flmm/{family}")
    (found,) = golden_lmm(case)([sample_of(case, first_of(case))], merge="max")
    torch.testing.assert_close(found.maps, case.tensor("merge_max__mask_attentions"), **UNMERGED)


@pytest.mark.device
@pytest.mark.parametrize("family", cases_with("lmm_bf16__mask_attentions"))
def test_golden_bfloat16_lmm(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case, torch.bfloat16)
    (found,) = lmm([sample_of(case, first_of(case))], merge=merge_of(case))
    expected = case.tensor("lmm_bf16__mask_attentions")
    assert found.states.dtype == torch.bfloat16
    # Rounding alone moves the original's maps that far; ours must not be farther off than twice
    # that.
    rounding = (case.tensor(f"{first_of(case)}__mask_attentions") - expected).norm()
    assert (found.maps - expected).norm() < 2 * rounding
    assert rounding < 0.3 * expected.norm()


@pytest.mark.parametrize("family", CASES)
def test_golden_sequences_and_columns(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    for name in names(case):
        sample = sample_of(case, name)
        layout = lmm.family.layout(sample.image)
        text = lmm._expand_image_tokens(sample.text, layout)
        assert len(text.input_ids) == case.meta["samples"][name]["seq_len"]
        assert torch.equal(text.phrase_ids, case.tensor(f"{name}__merged_mask_ids").clamp(min=-1))
        assert torch.equal(lmm._columns(text.input_ids), case.tensor(f"{name}__image_columns"))
        if f"{name}__merged_labels" in case.arrays:
            assert torch.equal(text.labels, case.tensor(f"{name}__merged_labels"))


@pytest.mark.parametrize("family", CASES)
def test_golden_grids(golden, family):
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    for name, record in case.meta["samples"].items():
        image = sample_of(case, name).image
        layout = lmm.family.layout(image)
        assert layout.tokens == case.meta.get(
            "num_image_tokens", len(case.arrays[f"{name}__image_columns"])
        )
        if "clip_shape" in case.meta:
            assert tuple(layout.grids[-1].shape) == (case.meta["clip_shape"],) * 2
        if "fine_shape" in record:
            assert list(layout.grids[-1].shape) == record["fine_shape"]
            assert case.arrays[f"{name}__image_feature_shape"].tolist() == record["fine_shape"]
            assert len(image.pixel_values) == record["num_tiles"]
            assert list(image.frame.image_size) == case.arrays[f"{name}__image_sizes"].tolist()
        if "image_grid" in case.meta:
            side = case.meta["image_size_raw"] // case.meta["clip_config"]["patch_size"]
            assert tuple(layout.grids[-1].shape) == (side * case.meta["image_grid"],) * 2


@pytest.mark.device
@pytest.mark.parametrize("family", CASES)
def test_golden_attention_and_states_of_every_token(golden, family):
    """Nothing merged: rows of attention as the original's softmax gave them, and the last hidden
    state."""
    case = golden("forward", f"flmm/{family}")
    lmm = golden_lmm(case)
    for name in names(case):
        sample = sample_of(case, name)
        text = lmm._expand_image_tokens(sample.text, lmm.family.layout(sample.image))
        everywhere = torch.arange(len(text.input_ids))
        inputs = lmm._inputs([sample.image], text.input_ids[None], [text.prompt_tokens])
        with (
            torch.no_grad(),
            Capture(lmm.language_model, rows=[TokenRows(0)], columns=[everywhere]) as capture,
        ):
            mask = torch.ones_like(inputs["input_ids"])
            lmm.model.model(**inputs, attention_mask=mask, use_cache=False)
        norms = capture.states(0)[-1].norm(dim=-1)
        torch.testing.assert_close(
            norms, case.tensor(f"{name}__last_hidden_l2"), atol=1e-4, rtol=1e-4
        )
        attention = (
            capture.maps(0).unflatten(1, (lmm.layers, -1)).permute(1, 2, 0, 3)
        )  # (L, H, S, S)
        assert not attention.triu(1).any()
        rows, columns = phrase_rows(case, name), case.tensor(f"{name}__image_columns")
        parts = {
            "attn_phrase_rows_to_image": attention[:, :, rows][..., columns],
            "attn_first_phrase_row_to_image": attention[:, :, rows[0]][..., columns],
            "attn_layer0_head0_full": attention[0, 0],
        }
        for part, found in parts.items():
            if f"{name}__{part}" in case.arrays:
                torch.testing.assert_close(found, case.tensor(f"{name}__{part}"), **UNMERGED)
        if f"{name}__hidden_phrase_rows" in case.arrays:
            states = case.tensor(f"{name}__hidden_phrase_rows")
            torch.testing.assert_close(capture.states(0)[:, rows], states, atol=1e-4, rtol=1e-4)

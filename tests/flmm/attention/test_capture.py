"""Captured rows against the whole attention matrices that unfused attention returns."""

import pytest
import torch
from flmm.attention.capture import Capture, PhraseRows, TokenRows
from flmm.attention.rows import ATTENTION_NAME, use_rows_attention
from tolerance import float32_sum
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
)

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}
GROUPED = {"num_attention_heads": 6, "num_key_value_heads": 2}
MODELS = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES, **HEADS)),
    "grouped": lambda: Qwen2Model(Qwen2Config(**SIZES, **GROUPED)),
    "capped": lambda: Gemma2Model(
        Gemma2Config(**SIZES, **GROUPED, head_dim=4, sliding_window=8, attn_logit_softcapping=1.5)
    ),
    "sliding": lambda: MistralModel(
        MistralConfig(**SIZES, **GROUPED, head_dim=8, sliding_window=6)
    ),
}
LENGTH = 14


def build(name: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(3)
    model = MODELS[name]().to(dtype).eval()
    # Sharper than the usual initialisation: rows that differ from the mean.
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.q_proj.weight.mul_(20)
    use_rows_attention(model)
    return model


def eager(model, **inputs) -> tuple[list[Tensor], list[Tensor]]:
    """All attention matrices (B, H, S, S) and hidden states (B, S, D) of the layers, from unfused
    attention."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    model.set_attn_implementation(ATTENTION_NAME)
    return list(output.attentions), list(output.hidden_states[1:])


def slow_maps(
    attentions: list[Tensor], item: int, phrases: list[Tensor], columns: Tensor, merge: str
) -> Tensor:
    found = []
    for phrase in phrases:
        channels = []
        for layer in attentions:
            for head in layer[item]:
                rows = torch.stack([head[row][columns] for row in phrase.tolist()])
                channels.append(rows.mean(0) if merge == "mean" else rows.max(0).values)
        found.append(torch.stack(channels))
    return torch.stack(found)


@pytest.mark.parametrize("merge", ["mean", "max"])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("name", list(MODELS))
def test_maps_and_states_are_those_of_eager_attention(name, padding, merge):
    model = build(name)
    ids = torch.randint(1, 50, (2, LENGTH))
    real = torch.ones(2, LENGTH, dtype=torch.long)
    offset = 0
    if padding != "none":
        pad = slice(0, 3) if padding == "left" else slice(LENGTH - 3, LENGTH)
        real[1, pad] = 0
        offset = 3 if padding == "left" else 0
    phrases = [
        [torch.tensor([9, 10]), torch.tensor([13]), torch.tensor([10, 12, 11])],
        [torch.tensor([6, 7]) + offset],
    ]
    columns = [torch.arange(1, 6), torch.tensor([2, 3, 4, 0]) + offset]
    inputs = {"input_ids": ids, "attention_mask": real}
    rows = [PhraseRows(p, merge) for p in phrases]
    with torch.no_grad(), Capture(model, rows=rows, columns=columns) as capture:
        model(**inputs, use_cache=False)
    attentions, states = eager(model, **inputs)
    for item in range(2):
        expected = slow_maps(attentions, item, phrases[item], columns[item], merge)
        torch.testing.assert_close(capture.maps(item), expected, atol=float32_sum(100), rtol=1e-4)
        wanted = torch.stack([layer[item][torch.cat(phrases[item])] for layer in states])
        torch.testing.assert_close(capture.states(item), wanted, atol=float32_sum(1000), rtol=1e-4)


def test_sliding_windows_really_cut():
    """The image columns lie outside the window of late rows: a test of the sliding case above that
    is no formality."""
    model = build("sliding")
    ids = torch.randint(1, 50, (1, LENGTH))
    rows, columns = [PhraseRows([torch.tensor([LENGTH - 1])])], [torch.arange(0, 12)]
    with torch.no_grad(), Capture(model, rows=rows, columns=columns) as capture:
        model(input_ids=ids)
    maps = capture.maps(0)
    assert (maps[..., :8] == 0).all()
    assert (maps[..., 8:] > 0).all()


def test_bfloat16_means_are_rounded_as_in_the_model():
    model = build("llama", torch.bfloat16)
    ids = torch.randint(1, 50, (1, LENGTH))
    phrases = [torch.tensor([7, 8, 9])]
    with (
        torch.no_grad(),
        Capture(model, rows=[PhraseRows(phrases)], columns=[torch.arange(6)]) as capture,
    ):
        model(input_ids=ids)
    maps = capture.maps(0)
    assert maps.dtype == torch.bfloat16
    attentions, _ = eager(model, input_ids=ids)
    # SDPA rounds elsewhere than unfused attention does, so later layers see other inputs in the
    # last bits.
    torch.testing.assert_close(
        maps, slow_maps(attentions, 0, phrases, torch.arange(6), "mean"), atol=2e-2, rtol=2e-2
    )
    heads = model.config.num_attention_heads
    torch.testing.assert_close(
        maps[:, :heads],
        slow_maps(attentions[:1], 0, phrases, torch.arange(6), "mean"),
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("window", [None, 6])
def test_generated_tokens_with_a_cache(window):
    torch.manual_seed(3)
    config = MistralConfig(
        **SIZES, **GROUPED, head_dim=8, sliding_window=window, eos_token_id=None, pad_token_id=0
    )
    model = MistralForCausalLM(config).eval()
    use_rows_attention(model.model)
    prompt = torch.randint(1, 50, (1, 9))
    columns = torch.arange(2, 7)
    with torch.no_grad(), Capture(model.model, rows=[TokenRows(9)], columns=[columns]) as capture:
        ids = model.generate(input_ids=prompt, max_new_tokens=5, do_sample=False)
    fed = torch.arange(9, ids.shape[1] - 1)  # the last token is said, but never an input
    attentions, states = eager(model.model, input_ids=ids[:, :-1])
    expected = slow_maps(attentions, 0, [row[None] for row in fed], columns, "mean")
    torch.testing.assert_close(capture.maps(0), expected, atol=float32_sum(100), rtol=1e-4)
    torch.testing.assert_close(
        capture.states(0), torch.stack([s[0][fed] for s in states]), atol=1e-5, rtol=1e-4
    )


def test_nothing_generated_is_an_empty_capture():
    model = build("llama")
    with torch.no_grad(), Capture(model, rows=[TokenRows(5)], columns=[torch.arange(3)]) as capture:
        model(input_ids=torch.randint(1, 50, (1, 5)))
    assert capture.maps(0).shape == (0, 12, 3)
    assert capture.states(0).shape == (3, 0, 24)


def test_no_phrases_is_an_empty_capture():
    model = build("llama")
    with (
        torch.no_grad(),
        Capture(model, rows=[PhraseRows([])], columns=[torch.arange(3)]) as capture,
    ):
        model(input_ids=torch.randint(1, 50, (1, 5)))
    assert capture.maps(0).shape == (0, 12, 3)


def test_gradient_checkpointing_repeats_nothing():
    model = build("llama")
    ids = torch.randint(1, 50, (1, LENGTH))
    rows, columns = [PhraseRows([torch.tensor([8, 9])])], [torch.arange(5)]
    with torch.no_grad(), Capture(model, rows=rows, columns=columns) as plain:
        model(input_ids=ids)
    # transformers renamed the method between 5.17 and 5.23, and the old name warns.
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable()
    model.train()
    embeds = model.embed_tokens(ids).detach().requires_grad_()
    with Capture(model, rows=rows, columns=columns) as capture:
        model(inputs_embeds=embeds, use_cache=False).last_hidden_state.sum().backward()
    assert embeds.grad is not None
    torch.testing.assert_close(capture.maps(0), plain.maps(0))
    torch.testing.assert_close(capture.states(0), plain.states(0))
    assert not capture.maps(0).requires_grad


def test_another_attention_is_refused():
    model = build("llama")
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"attn_implementation='sdpa'.*use_rows_attention"):
        Capture(model, rows=[TokenRows(0)], columns=[torch.arange(3)]).__enter__()
    use_rows_attention(model)
    with Capture(
        model, rows=[TokenRows(0)], columns=[torch.arange(3)]
    ) as capture:  # nothing was left behind
        model(input_ids=torch.randint(1, 50, (1, 5)))
    assert capture.maps(0).shape == (5, 12, 3)


def test_two_captures_of_one_model_are_refused():
    model = build("llama")
    with Capture(model, rows=[TokenRows(0)], columns=[torch.arange(3)]):
        with pytest.raises(ValueError, match="being captured already"):
            Capture(model, rows=[TokenRows(0)], columns=[torch.arange(3)]).__enter__()
        model(input_ids=torch.randint(1, 50, (1, 5)))  # the first one still listens


def test_a_capture_that_heard_nothing_says_so():
    model = build("llama")
    silent = Capture(model, rows=[PhraseRows([torch.tensor([3])])], columns=[torch.arange(3)])
    with pytest.raises(ValueError, match="heard 0 of 1 phrases"), silent:
        pass
    elsewhere = Capture(model, rows=[PhraseRows([torch.tensor([30])])], columns=[torch.arange(3)])
    with pytest.raises(ValueError, match="heard 0 of 1 phrases"), elsewhere:
        model(input_ids=torch.randint(1, 50, (1, 5)))


def test_wrong_phrases_and_batches_are_refused():
    with pytest.raises(ValueError, match=r"phrases \[1\] have no token"):
        PhraseRows([torch.tensor([3]), torch.tensor([], dtype=torch.long)])
    with pytest.raises(ValueError, match="'mean' and 'max'"):
        PhraseRows([], "sum")
    model = build("llama")
    single = Capture(model, rows=[TokenRows(0)], columns=[torch.arange(3)])
    with pytest.raises(ValueError, match="2 sequences for 1 items"), single:
        model(input_ids=torch.randint(1, 50, (2, 5)))
    with pytest.raises(ValueError, match="1 items of rows and 2 of columns"):
        Capture(model, rows=[TokenRows(0)], columns=[torch.arange(3)] * 2)
    model(input_ids=torch.randint(1, 50, (2, 5)))  # errors inside left no listener behind


def test_old_transformers_are_named(monkeypatch):
    monkeypatch.setattr("flmm.transformers_compat.version", lambda name: "4.39.1")
    with pytest.raises(ValueError, match=r"transformers 4\.39\.1 is too old.*pip install"):
        use_rows_attention(MODELS["llama"]())

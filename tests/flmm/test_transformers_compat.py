"""What flmm uses of transformers beyond its documented interface: each test names what broke."""

import pytest
import torch
from flmm import transformers_compat as compat
from torch import nn
from transformers import LlamaConfig, LlamaModel

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}


def llama() -> LlamaModel:
    return LlamaModel(LlamaConfig(**SIZES, num_attention_heads=4))


def test_a_decoder_has_layers_with_attention_and_a_norm():
    model = llama()
    parts = compat.decoder_parts(model)
    assert len(parts.layers) == len(parts.attentions) == 2
    assert parts.attentions[1] is model.layers[1].self_attn
    assert parts.norm is model.norm
    with pytest.raises(ValueError, match="Linear is no decoder that flmm can listen to"):
        compat.decoder_parts(nn.Linear(2, 2))


def test_other_models_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"pass one of transformers, with `model.language_model`"):
        compat.lmm_parts(nn.Linear(2, 2))
    mute = nn.Module()
    mute.model = nn.Module()
    mute.model.language_model = llama()
    with pytest.raises(ValueError, match="cannot generate text"):
        compat.lmm_parts(mute)


def test_a_registered_attention_runs_with_the_masks_of_sdpa():
    heard = []

    def attention(module, query, key, value, mask, **kwargs):
        heard.append(mask)
        return compat.sdpa_attention(module, query, key, value, mask, **kwargs)

    torch.manual_seed(0)
    model = llama().eval()
    ids, mask = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[0, 1, 1, 1]])
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state

    compat.register_attention("flmm_test", attention)
    compat.choose_attention(model, "flmm_test")
    assert compat.attention_in_use(model.layers[0].self_attn) == "flmm_test"
    found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert len(heard) == 2
    assert heard[0] is not None  # without a mask function of the same name there is none
    torch.testing.assert_close(found, expected)


def test_a_model_without_the_attention_interface_is_named():
    with pytest.raises(ValueError, match="Linear keeps attn_implementation=None"):
        compat.choose_attention(nn.Linear(2, 2), "flmm_test")


def test_grids_of_tokens():
    # A picture twice as wide as high fills the upper half of a square: rows are cut, columns stay.
    assert compat.unpadded_grid((8, 8), (50, 100)) == (4, 8)
    assert compat.best_canvas((500, 1000), [(336, 336), (336, 672)]) == (336, 672)
    assert compat.best_tiles((500, 1000), 448, least=1, most=12) == (1, 2)

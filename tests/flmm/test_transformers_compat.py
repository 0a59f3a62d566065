"""What flmm uses of transformers beyond its documented interface: each test names what broke."""

import pytest
import torch
from flmm import transformers_compat as compat
from PIL import Image
from todays_lmms import TODAY
from torch import nn
from transformers import (
    Llama4ImageProcessor,
    LlamaConfig,
    LlamaModel,
    Qwen3_5TextConfig,
    Qwen3_5TextModel,
)

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}


def llama() -> LlamaModel:
    return LlamaModel(LlamaConfig(**SIZES, num_attention_heads=4))


def test_a_decoder_has_layers_with_attention_and_a_norm():
    model = llama()
    parts = compat.decoder_parts(model)
    assert len(parts.layers) == len(parts.attentions) == 2
    assert parts.attentions[1] is model.layers[1].self_attn
    assert parts.outputs == [model.layers[0], model.norm]
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


def test_linear_layers_of_a_hybrid_decoder_are_left_out():
    config = Qwen3_5TextConfig(
        **{**SIZES, "num_hidden_layers": 9},
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
    )
    model = Qwen3_5TextModel(config)
    parts = compat.decoder_parts(model)
    assert parts.layers == [model.layers[3], model.layers[7]]
    assert parts.outputs == parts.layers  # the last layer of all is a linear one


def test_decoders_are_found_where_each_model_has_them():
    for name, place in (("smolvlm", "text_model"), ("qwen3_vl", "language_model")):
        model, _ = TODAY[name][0]()
        parts = compat.lmm_parts(model)
        assert parts.core is model.model
        assert parts.language_model is getattr(model.model, place)
    model, _ = TODAY["llama4"][0]()
    parts = compat.lmm_parts(model)
    assert parts.language_model is model.language_model.model
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert parts.core(input_ids=ids).logits.shape[1] == 1  # not of every token


def test_capped_scores_are_loaded_without_sdpa():
    capped, _ = TODAY["paligemma"][0]()
    plain, _ = TODAY["gemma3"][0]()
    assert compat.own_attention(capped.config) == {"": "sdpa", "text_config": "eager"}
    assert compat.own_attention(plain.config) == "sdpa"


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("size", [(60, 90), (100, 40), (30, 30), (28, 28), (20, 200), (3, 90)])
def test_canvases_of_llama4_are_those_of_its_processor(size, largest):
    processor = Llama4ImageProcessor(
        size={"height": 28, "width": 28}, max_patches=6, resize_to_max_canvas=largest
    )
    white = Image.new("RGB", size[::-1], "white")
    made = processor(images=[white], return_tensors="pt", do_normalize=False)
    (height, width), (tall, wide) = compat.padded_canvas(size, 28, most=6, largest=largest)
    rows, columns = made["aspect_ratios"][0].tolist()
    assert (rows * 28, columns * 28) == (tall, wide)
    tiles = made["pixel_values"][: rows * columns, 0].unflatten(0, (rows, columns))
    canvas = tiles.transpose(1, 2).flatten(2).flatten(0, 1)  # padding is black
    assert (canvas[:height, :width] > 0.9).all()
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()


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

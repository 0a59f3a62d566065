"""Loading LMMs from folders, and families: known, unknown, one's own."""

import json
import shutil

import pytest
import torch
from flmm import build_lmm, load_lmm, register_family, supported_families
from flmm.adapters import registry
from flmm.chat import ask
from golden_lmms import golden_lmm, tokenizer_of
from tiny_lmms import FAMILIES, picture, sample, tiny_lmm
from transformers import GPT2Config, GPT2LMHeadModel


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """The golden LLaVA as users have it: weights, configuration, tokenizer and image processor."""
    case = golden("forward", "flmm/llava")
    made = tmp_path_factory.mktemp("llava")
    for file in (case.folder / "hf").iterdir():
        shutil.copyfile(file, made / file.name)
    tokenizer_of(case, "llava").save_pretrained(made)
    side = json.loads((made / "config.json").read_text())["vision_config"]["image_size"]
    FAMILIES["llava"]()[1].__class__(size={"shortest_edge": side}).save_pretrained(made)
    return made


def test_golden_folder_loads_and_answers(golden, folder):
    lmm = load_lmm(folder, dtype="float32")
    image = picture(60, 90)
    assert lmm.family.prepare(image).pixel_values.shape[-1] == lmm.model.config.vision_config.image_size
    assert ask(lmm, image, "What is it?", max_new_tokens=3).generated.maps.shape[1] == lmm.map_channels
    reference = golden_lmm(golden("forward", "flmm/llava"))
    for name, value in reference.model.state_dict().items():
        assert torch.equal(lmm.model.state_dict()[name], value)
    assert load_lmm(folder).model.dtype == torch.bfloat16


def test_golden_folder_without_some_weights_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(k for k in sorted(weights) if "self_attn.q_proj" in k and "language_model" in k)
    del weights[name]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as .*q_proj.*would be random"):
        load_lmm(broken, dtype="float32")


def test_folders_that_are_no_lmm(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LMM at"):
        load_lmm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "multi_modality"}))
    with pytest.raises(ValueError, match=r"'multi_modality' \(the authors' layout.*deepseek-community"):
        load_lmm(tmp_path)
    with pytest.raises(ValueError, match="bfloat16, float16, float32"):
        load_lmm(tmp_path, dtype="int8")


def test_an_unknown_family_names_the_known_ones():
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(ValueError, match=r"type 'gpt2'.*deepseek_vl, deepseek_vl_hybrid, internvl.*register_family"):
        build_lmm(model, None)


def test_a_family_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    with pytest.raises(ValueError, match="family for 'llava' already"):
        register_family("llava", dict)
    register_family("gpt2", lambda config, image_processor: (config, image_processor))
    assert "gpt2" in supported_families()
    assert registry.family_for(GPT2Config(), "processor")[1] == "processor"


def test_a_llava_without_a_fixed_grid_is_refused():
    config = tiny_lmm("llava").model.config
    config.vision_config.image_size = None
    with pytest.raises(ValueError, match="no fixed square grid"):
        registry.family_for(config, None)


def test_a_llava_next_on_an_unknown_language_model_is_refused():
    config = tiny_lmm("llava_next_vicuna").model.config
    config.text_config.model_type = "gpt9"
    with pytest.raises(ValueError, match=r"LLaVA-NeXT on 'gpt9'; known: llama, mistral, qwen2"):
        registry.family_for(config, None)


def test_a_language_model_outside_the_attention_interface_is_refused(monkeypatch):
    lmm = tiny_lmm("llava")
    monkeypatch.setattr(type(lmm.language_model), "_can_set_attn_implementation", lambda self: False)
    lmm.language_model.config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="does not use transformers' attention interface"):
        build_lmm(lmm.model, FAMILIES["llava"]()[1])


def test_an_image_without_phrases_has_no_maps():
    lmm = tiny_lmm("llava_next_vicuna")
    empty = sample(lmm, picture(60, 90), phrases=0)
    full = sample(lmm, picture(90, 60), phrases=2)
    none, some = lmm([empty, full])
    assert none.maps.shape[:2] == (0, lmm.map_channels)
    assert none.states.shape == (lmm.layers, 0, lmm.hidden_size)
    assert some.maps.shape[0] == 2

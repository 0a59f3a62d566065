"""Loading LMMs from folders, and families: known, unknown, one's own."""

import json
import shutil

import pytest
import torch
from flmm import build_lmm, load_lmm, register_family, supported_families
from flmm.adapters import registry
from flmm.adapters.authors import deepseek as deepseek_authors
from flmm.dialogue.answers import ask
from golden_lmms import first_of, golden_lmm, is_hybrid, sample_of, tokenizer_of
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
    assert (
        lmm.family.prepare(image).pixel_values.shape[-1]
        == lmm.model.config.vision_config.image_size
    )
    assert (
        ask(lmm, image, "What is it?", max_new_tokens=3).generated.maps.shape[1] == lmm.map_channels
    )
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
    with pytest.raises(
        FileNotFoundError, match=r"no config.json with a model_type: pass the folder of an LMM"
    ):
        load_lmm(tmp_path)
    with pytest.raises(ValueError, match="bfloat16, float16, float32"):
        load_lmm(tmp_path, dtype="int8")


@pytest.fixture(scope="module")
def authors(golden, tmp_path_factory):
    """A DeepSeek-VL of one tower as its authors release it, with the golden weights."""
    case = golden("forward", "flmm/deepseek_vl")
    if is_hybrid(case):  # its own tests make one of two towers
        pytest.skip("this set's DeepSeek-VL has two towers")
    folder = tmp_path_factory.mktemp("authors")
    about = json.loads((case.folder / "lmm.json").read_text())
    language = {
        "model_type": "llama",
        "torch_dtype": "float16",
        **about["config"]["language_config"],
    }
    config = {"model_type": "multi_modality", **about["config"], "language_config": language}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(case.folder / "lmm.safetensors", folder / "model.safetensors")
    for file in (case.folder.parent / "data" / "tokenizer_deepseek").iterdir():
        shutil.copyfile(file, folder / file.name)
    half = [0.5, 0.5, 0.5]
    pixels = {
        "image_size": about["registered_sizes"]["siglip"]["image_size"],
        "image_mean": half,
        "image_std": half,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps({**pixels, "min_size": 14}))
    tower = about["config"]["vision_config"]["params"]["model_name"]
    return folder, {tower: about["registered_sizes"]["siglip"]["heads"]}


def test_golden_folder_of_deepseek_s_authors(golden, authors, monkeypatch):
    folder, towers = authors
    monkeypatch.setattr(deepseek_authors, "SIGLIP_HEADS", towers)
    case = golden("forward", "flmm/deepseek_vl")
    reference, found = golden_lmm(case), load_lmm(folder, dtype="float32")
    assert found.model.config.model_type == "deepseek_vl"
    assert found.family.image_token_id == reference.family.image_token_id
    for name, value in reference.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    image = picture(60, 90)
    assert torch.equal(
        found.family.prepare(image).pixel_values, reference.family.prepare(image).pixel_values
    )
    sample = sample_of(case, first_of(case))
    torch.testing.assert_close(found([sample])[0].maps, reference([sample])[0].maps)
    own = tokenizer_of(case, "deepseek")
    assert found.tokenizer.encode("a dog<image_placeholder>.") == own.encode(
        "a dog<image_placeholder>."
    )
    assert load_lmm(folder).model.dtype == torch.bfloat16


def test_golden_folders_of_the_authors_that_cannot_be_read(authors, tmp_path, monkeypatch):
    folder, towers = authors
    with pytest.raises(
        ValueError, match=r"vision tower 'CLIPVisionTower' .* not know: use deepseek-community"
    ):
        load_lmm(folder)  # a tower of that name is not known
    monkeypatch.setattr(deepseek_authors, "SIGLIP_HEADS", towers)
    broken = shutil.copytree(folder, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    hybrid = {**config, "vision_config": {"cls": "HybridVisionTower", "params": {}}}
    (broken / "config.json").write_text(json.dumps(hybrid))
    with pytest.raises(ValueError, match=r"'HybridVisionTower' \(None, \) that flmm does not know"):
        load_lmm(broken)
    config["language_config"]["num_hidden_layers"] += 1
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"not those of DeepSeek-VL 1.3B: missing \['model.language_model.layers"
    ):
        load_lmm(broken)
    for file, message in (
        ("model.safetensors", "no weights in"),
        ("preprocessor_config.json", "no preprocessor_config"),
        ("tokenizer.json", "no tokenizer.json"),
    ):
        (broken / file).unlink()
        with pytest.raises(FileNotFoundError, match=message):
            load_lmm(broken)


def test_llama_s_class_of_a_tokenizer_puts_a_bos_first(authors, tmp_path):
    folder, _ = authors
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / file, tmp_path / file)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**whole, "post_processor": None}))
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    found = {}
    for added in (True, False):
        config = {**about, "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": added}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        found[added] = deepseek_authors._tokenizer(tmp_path)
    bos = found[True].bos_token_id
    assert found[True].encode("a dog") == [bos, *found[False].encode("a dog")]
    assert bos not in found[False].encode("a dog")


def test_an_unknown_family_names_the_known_ones():
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(
        ValueError,
        match=r"type 'gpt2'.*deepseek_vl, deepseek_vl_hybrid, .*internvl.*register_family",
    ):
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
    monkeypatch.setattr(
        type(lmm.language_model), "_can_set_attn_implementation", lambda self: False
    )
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

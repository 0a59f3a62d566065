"""4-bit weights and adapters of an LMM: what they change, and what is said without their
packages."""

from importlib.util import find_spec

import pytest
import torch
import transformers as hf
from flmm import load_lmm
from flmm.adapters import build_lmm, loading
from tiny_grounding import word_tokenizer
from tiny_lmms import FAMILIES, IMAGE_ID, picture, sample, tiny_lmm

FEW = {"peft": "peft is not installed", "bitsandbytes": "bitsandbytes is not installed"}


# peft and bitsandbytes are ahead of, or behind, what transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def needs(name):
    return pytest.mark.skipif(find_spec(name) is None, reason=FEW[name])


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def folder(request, tmp_path_factory):
    """(folder of a tiny LMM, the LMM)"""
    folder = tmp_path_factory.mktemp(request.param)
    lmm = tiny_lmm(request.param)
    word_tokenizer(lmm.family.style.image_token).save_pretrained(folder)
    FAMILIES[request.param]()[1].save_pretrained(folder)
    lmm.model.save_pretrained(folder)
    return folder, lmm


def states(lmm):
    (found,) = lmm([sample(lmm, picture(60, 90))])
    return found.states


def save_adapter(model, folder):
    """A LoRA on the queries and values of the language model, and its weights (B @ A) by name."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=r".*language_model.*\.(q|v)_proj")
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    tuned.save_pretrained(folder)


@needs("peft")
def test_a_merged_adapter_computes_what_peft_computes(folder, tmp_path):
    path, _ = folder
    plain = load_lmm(path, dtype="float32")
    before = states(plain)
    tuned = load_lmm(path, dtype="float32")
    save_adapter(tuned.model, tmp_path / "lora")  # the layers of `tuned` now have it
    expected = states(tuned)
    found = load_lmm(path, dtype="float32", adapter=tmp_path / "lora")
    torch.testing.assert_close(states(found), expected, atol=1e-4, rtol=1e-4)
    assert (states(found) - before).abs().max() > 1e-2
    assert not any(weight.requires_grad for weight in found.parameters())
    assert not any("lora" in name for name, _ in found.named_parameters())


@needs("peft")
def test_an_adapter_of_another_model_is_refused(folder, tmp_path):
    path, _ = folder
    save_adapter(load_lmm(path, dtype="float32").model, tmp_path / "lora")
    with pytest.raises(ValueError, match=r"is an adapter, not an LMM: pass the LMM"):
        load_lmm(tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    config.write_text(config.read_text().replace("_proj", "_projection"))
    with pytest.raises(ValueError, match=r"does not fit this LMM .*: pass the LMM"):
        load_lmm(path, dtype="float32", adapter=tmp_path / "lora")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_lmm(path, adapter=tmp_path / "none")


@needs("bitsandbytes")
def test_4_bits_change_an_lmm_a_little(tmp_path, monkeypatch):
    wide = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    tower = {"model_type": "clip_vision_model", **wide, "num_attention_heads": 4}
    text = {"model_type": "llama", **wide, "num_attention_heads": 4, "vocab_size": 64}
    config = hf.LlavaConfig(
        vision_config={**tower, "image_size": 56, "patch_size": 7},
        text_config=text,
        image_token_index=IMAGE_ID,
    )
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 56})
    torch.manual_seed(0)
    lmm = build_lmm(hf.LlavaForConditionalGeneration(config), processor)
    for part in (lmm.model, processor, word_tokenizer()):
        part.save_pretrained(tmp_path)
    expected = states(lmm)
    options = loading.four_bit_options

    def on_the_cpu(dtype, device):
        return {**options(dtype, "cuda"), "device_map": {"": "cpu"}}

    monkeypatch.setattr("flmm.adapters.registry.four_bit_options", on_the_cpu)
    found = load_lmm(tmp_path, dtype="float32", four_bit=True)
    layer = found.language_model.layers[0].self_attn.q_proj
    assert layer.weight.dtype == torch.uint8
    difference = (states(found).float() - expected).norm() / expected.norm()
    assert 1e-4 < difference < 0.5


def test_missing_packages_and_devices_are_said_at_once(folder, monkeypatch):
    path, _ = folder
    with pytest.raises(ValueError, match="4-bit weights need a GPU, and device='cpu' is none"):
        load_lmm(path, four_bit=True)
    with pytest.raises(ValueError, match="cannot be added to 4-bit weights"):
        load_lmm(path, four_bit=True, adapter="x/y")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="an adapter needs peft and accelerate: pip install peft"):
        load_lmm(path, dtype="float32", adapter="lora")
    with pytest.raises(ImportError, match="pip install bitsandbytes accelerate"):
        loading.four_bit_options("bfloat16", "cuda")

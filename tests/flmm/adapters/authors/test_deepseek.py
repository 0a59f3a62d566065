"""DeepSeek-VL 7B in its authors' layout: a SAM and a SigLIP tower, on a tiny model."""

import json
import re
import shutil

import pytest
import torch
from flmm import load_lmm
from flmm.adapters.authors import deepseek
from flmm.adapters.authors.deepseek_names import deepseek_to_transformers, sam_sizes
from flmm.adapters.frames import ImageFrame
from golden_lmms import in_parts, tokenizer_of
from safetensors.torch import load_file, save_file
from tiny_lmms import HALF, deepseek_vl_hybrid, picture, sample
from torch.nn import functional as F

SAM, LOW = "vision_model.vision_tower_high.vision_tower.", "vision_model.vision_tower_low."
# transformers' names -> the authors', the other way round than the package has them.
TO_AUTHORS = (
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.aligner\.high_res_vision_proj\.", "aligner.high_up_proj."),
    (r"^model\.aligner\.vision_proj\.", "aligner.low_up_proj."),
    (r"^model\.aligner\.proj\.", "aligner.layers.1."),
    (r"^model\.high_res_vision_alpha$", f"{SAM}hd_alpha_downsamples"),
    (r"^model\.high_res_vision_proj\.conv1\.", f"{SAM}downsamples.0."),
    (r"^model\.high_res_vision_proj\.conv2\.", f"{SAM}downsamples.1."),
    (r"^model\.high_res_vision_neck\.", f"{SAM}neck_hd."),
    (r"^model\.high_res_vision_model\.vision_encoder\.", SAM),
    (r"^model\.vision_model\.", f"{LOW}vision_tower."),
)
PARTS = {
    SAM: (
        (r"neck(_hd)?\.conv1\.", r"neck\1.0."),
        (r"neck(_hd)?\.layer_norm1\.", r"neck\1.1."),
        (r"neck(_hd)?\.conv2\.", r"neck\1.2."),
        (r"neck(_hd)?\.layer_norm2\.", r"neck\1.3."),
        (r"patch_embed\.projection\.", "patch_embed.proj."),
        (r"layers\.(\d+)\.layer_norm(.)\.", r"blocks.\1.norm\2."),
        (r"layers\.(\d+)\.", r"blocks.\1."),
    ),
    LOW: (
        (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"embeddings\.position_embedding\.weight", "pos_embed"),
        (r"post_layernorm\.", "norm."),
        (r"encoder\.layers\.(\d+)\.layer_norm(.)\.", r"blocks.\1.norm\2."),
        (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layers\.(\d+)\.", r"blocks.\1."),
    ),
}


def as_authors(tensors: dict) -> dict:
    """The weights under the names of a released 7B model, with its two norms that nothing uses."""
    named = {}
    for key, value in tensors.items():
        name = key
        for pattern, replacement in TO_AUTHORS:
            name, found = re.subn(pattern, replacement, key)
            if found:
                break
        for pattern, replacement in PARTS[SAM if name.startswith(SAM) else LOW]:
            if name.startswith((SAM, LOW)):
                name, found = re.subn(pattern, replacement, name, count=1)
                if found:
                    break
        if name.endswith("pos_embed") and name.startswith(LOW):
            value = value[None]
        named[name] = value
    for name in [n for n in named if ".self_attn.q_proj." in n and n.startswith(LOW)]:
        parts = [named.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        named[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat(parts)
    for unused in ("high_layer_norm", "low_layer_norm"):
        named[f"vision_model.{unused}.weight"] = torch.ones(3)
    return {name: value.clone().contiguous() for name, value in named.items()}


def as_torch_files(folder):
    """Write a folder's weights as .bin files, with their index where there is one."""
    for path in list(folder.glob("*.safetensors")):
        torch.save(
            load_file(path),
            path.with_name(path.name.replace("model", "pytorch_model", 1)).with_suffix(".bin"),
        )
        path.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = (
            index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        )
        (folder / "pytorch_model.bin.index.json").write_text(content)
        index.unlink()


@pytest.fixture(scope="module")
def tiny(golden):
    torch.manual_seed(7)
    model, _ = deepseek_vl_hybrid(vision_use_head=False)
    # The placeholder has an id of the golden tokenizer.
    words = len(tokenizer_of(golden("forward", "flmm/deepseek_vl"), "deepseek"))
    model.resize_token_embeddings(max(words, model.config.text_config.vocab_size))
    with torch.no_grad():  # zero at the start, where SAM's first global layer would have no effect
        model.model.high_res_vision_alpha.fill_(0.7)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def folder(golden, tiny, tmp_path, monkeypatch):
    """The tiny model as its authors would release it."""
    monkeypatch.setitem(deepseek.SIGLIP_HEADS, "siglip_tiny", 2)
    monkeypatch.setitem(deepseek.SAM_GLOBAL_LAYERS, "sam_tiny", (1,))  # the weights tell them
    case = golden("forward", "flmm/deepseek_vl")
    tokenizer_of(case, "deepseek").save_pretrained(tmp_path)
    low = {"model_name": "siglip_tiny", "image_size": 32, "pixel_mean": [0.5] * 3}
    params = {"low_res_cfg": low, "high_res_cfg": {"model_name": "sam_tiny", "image_size": 128}}
    language = tiny.config.text_config.to_dict()
    config = {
        "model_type": "multi_modality",
        "vision_config": {"cls": "HybridVisionTower", "params": params},
        "language_config": language,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    about = {"image_size": 128, "do_normalize": False, "min_size": 14}
    about |= {name: list(value) for name, value in HALF.items()}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    tensors = as_authors(tiny.state_dict())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


def test_heads_of_a_tower_that_no_release_has_are_read_from_the_configuration(
    folder, tiny, monkeypatch
):
    monkeypatch.setattr(deepseek, "SIGLIP_HEADS", {})
    monkeypatch.setattr(deepseek, "SAM_GLOBAL_LAYERS", {})
    with pytest.raises(ValueError, match=r"\(siglip_tiny, sam_tiny\) that flmm does not know"):
        load_lmm(folder)
    path = folder / "config.json"
    about = json.loads(path.read_text())
    params = about["vision_config"]["params"]
    params["high_res_cfg"]["global_attn_indexes"] = [1]
    for heads in (2, 5):
        params["low_res_cfg"]["heads"] = heads
        path.write_text(json.dumps(about))
        if heads == 2:
            assert load_lmm(folder).config.vision_config.num_attention_heads == heads
    with pytest.raises(ValueError, match=r"cannot have 5 heads: use deepseek-community"):
        load_lmm(folder)


FORMS = ["one_file", "in_parts", "torch_file", "torch_files"]


@pytest.mark.parametrize("form", FORMS)
def test_a_7b_model_from_its_authors_is_the_same_model(folder, tiny, form):
    if form in ("in_parts", "torch_files"):
        in_parts(folder)
    if form.startswith("torch"):
        as_torch_files(folder)
    lmm = load_lmm(folder, dtype="float32")
    assert lmm.config.model_type == "deepseek_vl_hybrid"
    found, expected = lmm.model.state_dict(), tiny.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    sam = lmm.config.high_res_vision_config
    own = tiny.config.high_res_vision_config
    for name in ("window_size", "global_attn_indexes", "num_attention_heads", "mlp_dim"):
        assert getattr(sam, name) == getattr(own, name), name

    image = lmm.family.prepare(picture(60, 90))
    inputs = {name: value[None] for name, value in image.inputs.items()}
    with torch.no_grad():
        features = [m.model.get_image_features(**inputs).pooler_output for m in (lmm.model, tiny)]
    torch.testing.assert_close(*features, atol=1e-4, rtol=1e-3)
    one = sample(lmm, picture(60, 90))
    one.text.input_ids[one.text.input_ids == 50] = lmm.family.image_token_id
    assert lmm([one])[0].maps.shape[1:] == (lmm.map_channels, 4, 4)


def test_the_towers_see_one_square_with_means_of_their_own(folder):
    """Padding has the colour of the processor's mean, not of the towers'."""
    prepared = load_lmm(folder).family.prepare(picture(60, 90))
    assert prepared.frame == ImageFrame((60, 90), (85, 128), (128, 128), 21, 0)
    fine = prepared.inputs["high_res_pixel_values"]
    mean, std = torch.tensor(deepseek.CLIP_MEAN), torch.tensor(deepseek.CLIP_STD)
    square = fine * std[:, None, None] + mean[:, None, None]
    assert (square[:, 0, 0] * 255).tolist() == pytest.approx([127] * 3, abs=1e-3)
    small = F.interpolate(square[None], (32, 32), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(prepared.pixel_values, (small - 0.5) / 0.5, atol=1e-5, rtol=0)


def test_a_7b_folder_that_is_not_whole_is_refused(folder, tmp_path):
    # Copies: older safetensors maps the file, which is written anew.
    tensors = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    for name, message in (
        (f"{SAM}hd_alpha_downsamples", "not those of DeepSeek-VL 7B: missing .*high_res_vision_a"),
        (f"{SAM}pos_embed", "not those of DeepSeek-VL: missing .*pos_embed"),
    ):
        kept = {key: value for key, value in tensors.items() if key != name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            load_lmm(folder)
    about = json.loads((folder / "preprocessor_config.json").read_text())
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "preprocessor_config.json").write_text(json.dumps({**about, "image_size": 64}))
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit this model's 128 px tower"):
        load_lmm(other)


def test_foreign_names_stay_as_they_are():
    assert deepseek_to_transformers({"surprise": torch.ones(1)}).keys() == {"surprise"}


def test_windows_as_large_as_the_grid_leave_the_global_layers_to_the_table():
    prefix = "model.high_res_vision_model.vision_encoder."
    tensors = {
        f"{prefix}patch_embed.projection.weight": torch.zeros(16, 3, 16, 16),
        f"{prefix}pos_embed": torch.zeros(1, 4, 4, 16),
        f"{prefix}neck.conv1.weight": torch.zeros(8, 16, 1, 1),
    }
    for layer in range(3):
        tensors[f"{prefix}layers.{layer}.mlp.lin1.weight"] = torch.zeros(32, 16)
        tensors[f"{prefix}layers.{layer}.attn.rel_pos_h"] = torch.zeros(7, 8)
    assert sam_sizes(tensors, global_layers=(1,))["global_attn_indexes"] == [1]
    for layer in (0, 1):  # windows of 14 on a grid of 4, as in a tower of the same code
        tensors[f"{prefix}layers.{layer}.attn.rel_pos_h"] = torch.zeros(27, 8)
    sizes = sam_sizes(tensors, global_layers=(1,))
    assert (sizes["global_attn_indexes"], sizes["window_size"]) == ([2], 14)

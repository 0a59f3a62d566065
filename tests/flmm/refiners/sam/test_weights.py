import os
from pathlib import Path

import pytest
import torch
from flmm.refiners.sam.weights import POSITIONS, SHARED_POSITIONS, load_sam, to_transformers
from safetensors.torch import load_file, save_file

SAM = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parents[3] / "golden")) / "flmm" / "sam"
WEIGHTS = SAM / "sam_tiny.safetensors"


@pytest.fixture(scope="module")
def sizes(golden):
    return golden("sam/sam_tiny", "flmm").meta["config"]


@pytest.fixture(scope="module")
def sam(sizes):
    return load_sam(WEIGHTS, decoder_heads=sizes["dec_num_heads"])


def test_golden_sizes_are_read_from_the_weights(sam, sizes):
    vision, prompt, decoder = (
        sam.config.vision_config,
        sam.config.prompt_encoder_config,
        sam.config.mask_decoder_config,
    )
    assert vision.image_size == prompt.image_size == sizes["image_size"]
    assert vision.patch_size == prompt.patch_size == sizes["vit_patch_size"]
    assert (vision.hidden_size, vision.num_hidden_layers) == (
        sizes["encoder_embed_dim"],
        sizes["encoder_depth"],
    )
    assert vision.num_attention_heads == sizes["encoder_num_heads"]
    assert list(vision.global_attn_indexes) == sizes["global_attn_indexes"]
    if len(sizes["global_attn_indexes"]) < sizes["encoder_depth"]:  # else no layer has windows
        assert vision.window_size == sizes["window_size"]
    assert (
        vision.output_channels
        == prompt.hidden_size
        == decoder.hidden_size
        == sizes["prompt_embed_dim"]
    )
    assert prompt.mask_input_channels == sizes["mask_in_chans"]
    assert (decoder.num_hidden_layers, decoder.mlp_dim) == (
        sizes["dec_depth"],
        sizes["dec_mlp_dim"],
    )
    assert (decoder.num_attention_heads, decoder.iou_head_hidden_dim) == (
        sizes["dec_num_heads"],
        sizes["iou_head_hidden_dim"],
    )
    # 1e-5 is torch's own, which the original decoder uses.
    assert {
        m.eps for m in sam.mask_decoder.transformer.modules() if isinstance(m, torch.nn.LayerNorm)
    } == {1e-5}


def test_golden_names_cover_the_model(sam):
    renamed = to_transformers(load_file(WEIGHTS))
    assert {*renamed, SHARED_POSITIONS} == set(sam.state_dict())
    assert all(torch.equal(value, sam.state_dict()[key]) for key, value in renamed.items())
    assert not any(p.is_meta for p in sam.parameters())


def test_names_of_transformers_stay(sam):
    own = sam.state_dict()
    assert to_transformers(own).keys() == own.keys()


def test_released_heads_are_renamed_with_and_without_positions(sam):
    heads = {k: v for k, v in load_file(WEIGHTS).items() if not k.startswith("image_encoder.")}
    wanted = {k for k in sam.state_dict() if k.startswith(("prompt_encoder.", "mask_decoder."))}
    assert set(to_transformers(heads)) == wanted
    positions = heads.pop("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")
    assert set(to_transformers(heads)) == wanted - {POSITIONS}
    assert torch.equal(positions, sam.state_dict()[POSITIONS])


def test_pth_and_folder_of_transformers_hold_the_same_model(sam, sizes, tmp_path):
    torch.save(load_file(WEIGHTS), tmp_path / "sam_vit_t.pth")
    sam.save_pretrained(tmp_path / "folder")
    from_file = load_sam(tmp_path / "sam_vit_t.pth", decoder_heads=sizes["dec_num_heads"])
    from_folder = load_sam(tmp_path / "folder")
    for other in (from_file, from_folder):
        assert other.state_dict().keys() == sam.state_dict().keys()
        assert all(
            torch.equal(a, b)
            for a, b in zip(other.state_dict().values(), sam.state_dict().values())
        )
        assert other.mask_decoder.config.num_attention_heads == sizes["dec_num_heads"]
        assert not other.training


def test_what_is_no_sam_is_refused(sizes, tmp_path):
    weights = load_file(WEIGHTS)
    save_file(
        {k: v for k, v in weights.items() if "image_encoder" not in k},
        tmp_path / "heads.safetensors",
    )
    with pytest.raises(ValueError, match="no whole SAM"):
        load_sam(tmp_path / "heads.safetensors")
    broken = {k: v for k, v in weights.items() if not k.endswith("norm_final_attn.bias")} | {
        "extra": torch.zeros(1)
    }
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(
        ValueError, match=r"(?s)missing \(1\).*layer_norm_final_attn.*unexpected \(1\): extra"
    ):
        load_sam(tmp_path / "broken.pth", decoder_heads=sizes["dec_num_heads"])
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="download or export it again"):
        load_sam(tmp_path / "cut.pth")
    with pytest.raises(FileNotFoundError, match="there is no SAM"):
        load_sam(tmp_path / "nothing.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="facebook/sam-vit-large"):
        load_sam(tmp_path / "empty")

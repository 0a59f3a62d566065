"""SigLIP 2 NaFlex and TIPSv2: tiny models of the real architecture give transformers' features."""

import open_clip
import pytest
import timm
import torch
from clim_models import RegionModel, create_model, load_checkpoint, more_models
from clim_models.checkpoints.transformers_layouts import SIGLIP2, TIPSV2
from clim_models.more_models import MORE_MODELS, build_tipsv2
from clim_models.names import model_config
from clim_models.survey import survey_tower
from open_clip.model import CustomTextCLIP
from safetensors.torch import load_file
from timm.models import register_model
from torch import nn

transformers = pytest.importorskip("transformers", reason="an optional library: clim-models[hf]")
pytest.importorskip("transformers.models.tipsv2", reason="an older transformers")
if not set(MORE_MODELS) <= set(open_clip.list_models()):
    pytest.skip("an older timm does not have their trunks", allow_module_level=True)

WIDTH, HEADS, LAYERS, HIDDEN = 48, 3, 2, 96
TINY = {"num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "hidden_size": WIDTH}
VOCABULARY, LENGTH = 40, 8
SMALL = {"embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS, "mlp_ratio": 2.0}


def small_trunk(name: str, **sizes) -> str:
    """Register a small version of one of timm's trunks, and return its name."""
    small = f"small_{name}"

    def build(pretrained=False, **options):
        return timm.create_model(name, **{**options, **SMALL, **sizes})

    if not timm.is_model(small):
        build.__name__ = small
        build.__module__ = __name__
        register_model(build)
    return small


def scrambled(model: nn.Module) -> nn.Module:
    """Give every parameter random values, so that none is passed over unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn_like(value) * 0.2 + ("norm" in name and "weight" in name))
    return model.eval()


def tiny_siglip2():
    """transformers' model and ours."""
    vision = {**TINY, "intermediate_size": HIDDEN, "num_patches": 16, "patch_size": 16}
    text = {**TINY, "intermediate_size": HIDDEN, "vocab_size": VOCABULARY}
    text |= {"max_position_embeddings": LENGTH, "projection_size": WIDTH}
    config = transformers.Siglip2Config(vision_config=vision, text_config=text)
    theirs = scrambled(transformers.Siglip2Model(config))

    ours = model_config("ViT-B-16-SigLIP2-NaFlex")
    trunk = small_trunk("naflexvit_base_patch16_siglip", pos_embed_grid_size=(4, 4))
    ours["vision_cfg"] |= {"timm_model_name": trunk, "image_size": 64}
    ours["text_cfg"] |= {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH}
    ours["text_cfg"] |= {"heads": HEADS, "layers": LAYERS, "mlp_ratio": HIDDEN / WIDTH}
    ours["embed_dim"] = WIDTH
    ours.pop("custom_text")
    return theirs, RegionModel(CustomTextCLIP(**ours)).eval()


def tiny_tipsv2(*, swiglu: bool = False):
    """transformers' model and ours."""
    vision = {**TINY, "mlp_ratio": 2, "image_size": 56, "use_swiglu_ffn": swiglu}
    text = {**TINY, "intermediate_size": HIDDEN, "vocab_size": VOCABULARY}
    text |= {"max_position_embeddings": LENGTH}
    config = transformers.Tipsv2Config(vision_config=vision, text_config=text)
    theirs = scrambled(transformers.Tipsv2Model(config))
    with torch.no_grad():
        theirs.temperature.fill_(0.02)

    ours = model_config("TIPSv2-g-14" if swiglu else "TIPSv2-B-14")
    # SwiGLU has two thirds of the width, for the gate as well: 2 x 64 rows.
    sizes = {"img_size": 56, "mlp_ratio": 128 / WIDTH if swiglu else 2.0}
    trunk = small_trunk(ours["vision_cfg"]["timm_model_name"], **sizes)
    ours["vision_cfg"] |= {"timm_model_name": trunk, "image_size": 56}
    ours["text_cfg"] |= {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH}
    ours["text_cfg"] |= {"heads": HEADS, "layers": LAYERS, "hidden_width": HIDDEN}
    ours["embed_dim"] = WIDTH
    return theirs, RegionModel(build_tipsv2(ours)).eval()


def patches_of(images: torch.Tensor, side: int) -> torch.Tensor:
    """What SigLIP 2's image processor makes of (B, 3, H, W): (B, N, side * side * 3)."""
    blocks = images.unfold(2, side, side).unfold(3, side, side)  # (B, 3, h, w, side, side)
    return blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_siglip2_naflex_gives_the_features_of_transformers(size):
    theirs, ours = tiny_siglip2()
    assert load_checkpoint(ours, theirs.state_dict()).layout == SIGLIP2
    images = torch.randn(2, 3, *size)
    tokens = torch.randint(0, VOCABULARY, (3, LENGTH))
    grid = torch.tensor([[size[0] // 16, size[1] // 16]] * 2)
    seen = torch.ones(2, int(grid[0].prod()), dtype=torch.long)

    expected = theirs.vision_model(patches_of(images, 16), seen, grid).pooler_output
    found = ours.encode_image(images, normalize=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    expected = theirs.text_model(tokens).pooler_output
    found = ours.encode_text(tokens, normalize=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert float(ours.logit_scale) == pytest.approx(float(theirs.logit_scale))


@torch.no_grad()
@pytest.mark.parametrize("swiglu", [False, True])
def test_tipsv2_gives_the_features_of_transformers(swiglu):
    theirs, ours = tiny_tipsv2(swiglu=swiglu)
    assert load_checkpoint(ours, theirs.state_dict()).layout == TIPSV2
    images = torch.randn(2, 3, 56, 56)
    tokens = torch.tensor([[5, 9, 0, 0, 0, 0, 0, 0], [3, 4, 5, 6, 7, 0, 0, 0]])

    expected = theirs.vision_model(images).pooler_output
    found = ours.encode_image(images, normalize=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    expected = theirs.text_model(tokens, attention_mask=tokens.ne(0)).pooler_output
    found = ours.encode_text(tokens, normalize=False)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    cut = ours.drop_padding(torch.cat([tokens, torch.zeros(2, 16, dtype=torch.long)], dim=1))
    assert cut.shape == (2, LENGTH)
    assert float(ours.logit_scale.exp()) == pytest.approx(50)


@pytest.mark.parametrize("swiglu", [False, True])
def test_files_of_tipsv2s_authors_are_read(swiglu, tmp_path):
    """transformers writes them as they were released: with the names of the authors."""
    theirs, ours = tiny_tipsv2(swiglu=swiglu)
    theirs.save_pretrained(tmp_path)
    released = load_file(tmp_path / "model.safetensors")
    assert "vision_encoder.register_tokens" in released
    assert "text_encoder.transformer.resblocks.0.attn.in_proj_weight" in released

    load_checkpoint(ours, theirs.state_dict())
    expected = {name: value.clone() for name, value in ours.state_dict().items()}
    scrambled(ours)
    assert load_checkpoint(ours, tmp_path / "model.safetensors").layout == TIPSV2
    torch.testing.assert_close(dict(ours.state_dict()), expected, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("build", [tiny_siglip2, tiny_tipsv2])
def test_the_box_that_is_the_whole_image_reads_as_the_image(build):
    theirs, ours = build()
    load_checkpoint(ours, theirs.state_dict())
    side = 4 * ours.stride
    images = torch.randn(2, 3, side, side)
    whole = [torch.tensor([[0.0, 0.0, 1.0, 1.0]])] * 2
    found = ours.encode_boxes(images, whole, mode="attention")
    torch.testing.assert_close(found, ours.encode_image(images), atol=1e-5, rtol=0)


def test_files_without_a_temperature_have_that_of_tipsv2():
    theirs, ours = tiny_tipsv2()
    weights = theirs.state_dict()
    del weights["temperature"]
    load_checkpoint(ours, weights)
    # That of the model with this name: each has its own.
    assert float(ours.logit_scale.detach().exp()) == pytest.approx(1 / 0.005065968260169029)
    scales = {model_config(name)["init_logit_scale"] for name in MORE_MODELS if "TIPS" in name}
    assert len(scales) == 4


@pytest.mark.parametrize("name", MORE_MODELS)
def test_their_image_towers_are_read(name):
    found = survey_tower(name)
    assert (found.refusal, found.attention) == ("", True)
    assert found.stride == (14 if name.startswith("TIPS") else 16)


def test_a_tag_that_is_no_file_names_the_repository():
    with pytest.raises(ValueError, match="hf download google/siglip2-base-patch16-naflex"):
        create_model("ViT-B-16-SigLIP2-NaFlex", "webli")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dinov3-vitl16-dinotxt", "image tower only. Use TIPSv2-L-14"),
        ("dino.txt", "image tower only"),
        ("PE-Spatial-B-16-512", "released without a text tower; PE-Core"),
        ("CLAP-HTSAT-fused", "hears audio"),
    ],
)
def test_models_without_a_text_tower_are_refused_by_the_reason(name, reason):
    with pytest.raises(ValueError, match=reason):
        create_model(name)


def test_an_older_timm_is_named():
    assert "pip install -U timm" in more_models.why_refused("TIPSv2-B-14")


def test_tipsv2_without_transformers_names_the_line(monkeypatch):
    monkeypatch.setattr(open_clip.hf_model, "transformers", None)
    with pytest.raises(ImportError, match=r'not installed: pip install -U "transformers'):
        create_model("TIPSv2-B-14")

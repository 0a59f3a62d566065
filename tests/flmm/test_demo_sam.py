"""The demo SAM: its shipped weights, what it is trained on, and that it learns."""

import json

import pytest
import torch
from clim_data.drawings import load_emoji
from flmm.demo.model_files import save_weights
from flmm.demo.sam import WEIGHTS, build_demo_sam, random_demo_sam
from flmm.demo.scenes import IMAGE_PX
from flmm.experiments.pretrain_sam import (
    SamTraining,
    ThingsHead,
    encode_images,
    main,
    measure,
    measured_scenes,
    pretrain_sam,
    prompted_loss,
    train_sam,
)
from flmm.experiments.sam_objects import LEAST_PX, ObjectScenes, jittered_boxes, rough_logits
from flmm.refiners.sam.geometry import binary_masks
from flmm.refiners.sam.refiner import SamRefiner
from safetensors import safe_open


def test_shipped_weights_refine_masks_of_drawings_they_never_saw():
    assert WEIGHTS.stat().st_size < 2_000_000
    with safe_open(WEIGHTS, "pt") as file:
        about = json.loads(file.metadata()["about"])
    found = measure(build_demo_sam(), measured_scenes("test", 10, seed=12))
    for kind in ("single", "plural"):
        assert 0.3 < found[f"rough {kind}"] < 0.7
        assert found[f"refined {kind}"] > found[f"rough {kind}"] + 0.12
    assert found["refined single"] > about["test"]["refined single"] - 0.1


def test_wrong_or_missing_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no demo SAM.*pretrain-demo-sam"):
        build_demo_sam(tmp_path / "none.safetensors")
    save_weights(torch.nn.Linear(2, 2), tmp_path / "other.safetensors", {})
    with pytest.raises(ValueError, match=r"another demo SAM.*pretrain-demo-sam"):
        build_demo_sam(tmp_path / "other.safetensors")


def test_scenes_have_things_of_the_training_vendors_and_the_same_for_the_same_seed():
    scenes = ObjectScenes(seed=3)
    split = load_emoji().split()
    assert {vendor for by in scenes.drawn.values() for vendor in by} == set(split.train_vendors)
    assert not set(scenes.drawn) & {*split.test_concepts, *split.val_concepts}
    batch, again = scenes.batch(6, 3), ObjectScenes(seed=3).batch(6, 3)
    torch.testing.assert_close(batch.images, again.images, rtol=0, atol=0)
    assert batch.images.shape == (6, 3, IMAGE_PX, IMAGE_PX)
    assert batch.masks.shape == batch.others.shape == (6, 3, IMAGE_PX, IMAGE_PX)
    assert (batch.masks.sum((2, 3)) >= LEAST_PX).all()
    assert not (batch.masks & batch.others).any()
    assert not (batch.masks & ~batch.things[:, None]).any()
    assert batch.others.any()


def test_rough_masks_are_rough():
    batch = ObjectScenes(seed=4).batch(40, 2)
    masks = batch.masks.flatten(0, 1)
    found = [
        rough_logits(masks, batch.others.flatten(0, 1), torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    binary = binary_masks(found[0], masks.shape[-2:])
    iou = (binary & masks).sum((1, 2)) / (binary | masks).sum((1, 2))
    assert 0.35 < iou.mean() < 0.65
    assert iou.max() < 0.95


def test_boxes_are_jittered_within_the_image():
    boxes = torch.tensor([[0.0, 0, 10, 20], [40, 50, 72, 72]])
    moved = jittered_boxes(boxes, torch.Generator().manual_seed(0), limit=72)
    assert ((moved >= 0) & (moved <= 72)).all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert (moved - boxes).abs().max() <= 0.2 * 32
    assert not torch.equal(moved, boxes)


def test_training_lowers_the_loss_and_trains_all_but_the_positions():
    sam = random_demo_sam()
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    batch = ObjectScenes(seed=9).batch(6, 2)

    def loss() -> float:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            refiner = SamRefiner(sam, use_text=False)
            features = encode_images(refiner, batch.images)
            return prompted_loss(
                refiner, features, batch, true_boxes=0.5, generator=generator
            ).item()

    first = loss()
    options = SamTraining(steps=20, batch_size=2, masks=2, warmup_steps=5)
    assert len(list(train_sam(sam, options))) == 20
    assert loss() < 0.8 * first
    after = sam.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == {
        "vision_encoder",
        "prompt_encoder",
        "mask_decoder",
    }
    assert not any(name.endswith("positional_embedding") for name in changed)
    assert "vision_encoder.patch_embed.projection.weight" in changed


def test_each_position_tells_its_own_pixels():
    head = ThingsHead(3)
    features = torch.randn(1, 3, 2, 2)
    changed = features.clone()
    changed[0, :, 1, 0] += 1
    differs = (head(features) != head(changed))[0]
    assert differs[4:, :4].all()
    assert differs.sum() == 16


def test_pretraining_writes_weights_that_load(tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    about = pretrain_sam(
        path, SamTraining(steps=2, batch_size=1, masks=1, warmup_steps=1), held_out=3
    )
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["about"]) == about
    assert about["options"]["steps"] == 2
    assert 0 <= about["test"]["refined single"] <= 1
    build_demo_sam(path)


def test_wrong_options():
    with pytest.raises(ValueError, match="steps=0"):
        main(["--steps", "0"])

"""The CLIM loss end to end against the original, and what the task does beside it."""

import math

import pytest
import torch
from clim_data import MosaicBatch, MosaicConfig, plan_mosaics
from clim_models.losses import contrastive_loss
from clim_train.methods.clim import ClimTask
from clim_train.methods.text_features import TextFeatures, caption_ids
from device import DEVICE
from tiny_towers import build_clip
from tiny_training import join, tiny_model, unit
from tolerance import float32_sum
from torch.nn import functional as F

MODES = {"v2": "align", "v1": "attention"}
MIX = {2: 1, 3: 1, 4: 1}


def golden_batch(case):
    """The original's mosaics: float tiles put together and enlarged bicubically, without
    antialiasing."""
    images = case.tensor("in/e2e/images")
    canvas = int(case.tensor("in/e2e/train_image_size"))
    config = MosaicConfig(
        canvas_px=canvas, single_px=images.shape[-1], mix=MIX, tile_source_px=images.shape[-1]
    )
    plan = plan_mosaics(len(images), config)
    tiles = images[: plan.num_tiles]
    mosaics, start = [], 0
    for side in plan.sides:
        part = tiles[start : start + side * side]
        rows = [torch.cat(list(part[r * side : (r + 1) * side]), dim=-1) for r in range(side)]
        mosaic = torch.cat(rows, dim=-2)[None]
        mosaics.append(F.interpolate(mosaic, (canvas, canvas), mode="bicubic", align_corners=False))
        start += side * side
    names = [str(i) for i in range(len(images))]
    return MosaicBatch(
        torch.cat(mosaics), plan.boxes(config), images[plan.num_tiles :], names, names
    )


@pytest.mark.device
def test_golden_clim_end_to_end(golden):
    case = golden("case04_clim_loss")
    for run, facts in case.meta["runs"].items():
        check_run(golden, case, run, facts)


def check_run(golden, case, run, facts):
    weights = golden(case.meta["weights_from"].split(".")[0])
    # The original cuts images and, in its attention readout, boxes to whole patches.
    quick_gelu = "quickgelu" in case.meta["weights_from"].lower()
    model = build_clip(
        weights, quick_gelu=quick_gelu, partial_patches="crop", box_patches="truncate"
    )
    ids = case.tensor("in/e2e/texts")
    model.tokenizer = lambda names: torch.stack([ids[int(name)] for name in names])
    model.freeze(facts["unlocked_groups"])
    task = ClimTask(model, box_mode=MODES[facts["extract_type"]])
    out = task.loss(golden_batch(case).to(DEVICE))
    out["loss"].backward()

    assert out["loss"].item() == pytest.approx(case.tensor(f"out/e2e/{run}/loss").item(), abs=5e-5)
    trained = {name.removeprefix("clip."): p for name, p in task.trainable_parameters().items()}
    assert set(trained) == set(facts["trainable"])
    norms = torch.stack([trained[name].grad.norm().double() for name in facts["trainable"]])
    torch.testing.assert_close(
        norms, case.tensor(f"out/e2e/{run}/grad_norms"), rtol=1e-3, atol=1e-6
    )
    assert norms.norm().item() == pytest.approx(
        case.tensor(f"out/e2e/{run}/total_grad_norm").item(), rel=1e-3
    )
    full = case.under(f"out/e2e/{run}/grad/")
    assert full
    for name, gradient in full.items():
        torch.testing.assert_close(trained[name].grad, gradient, rtol=1e-3, atol=2e-5)


@pytest.mark.device
def test_golden_loss_of_given_features(golden):
    case = golden("case04_clim_loss")
    images, texts, scale = (
        case.tensor(f"in/feat/{name}").requires_grad_()
        for name in ("image_features", "text_features", "logit_scale")
    )
    loss = contrastive_loss(images, texts, scale)
    loss.backward()
    assert loss.item() == pytest.approx(case.tensor("out/feat/loss").item(), abs=1e-5)
    for ours, name in (
        (images, "image_features"),
        (texts, "text_features"),
        (scale, "logit_scale"),
    ):
        torch.testing.assert_close(
            ours.grad, case.tensor(f"out/feat/grad_{name}"), rtol=1e-4, atol=float32_sum(500)
        )


def test_features_are_tiles_then_singles():
    model = tiny_model()
    task = ClimTask(model)
    batch = join([unit(0), unit(1)])
    features = task.image_features(batch)
    tiles = model.encode_boxes(model.normalize_pixels(batch.mosaics), batch.boxes)
    singles = model.encode_image(model.normalize_pixels(batch.singles))
    assert features.shape == (len(batch), model.embed_dim)
    torch.testing.assert_close(features, torch.cat([tiles, singles]))


@pytest.mark.parametrize("kept", ["mosaics", "singles"])
def test_batches_of_one_kind(kept):
    batch = unit(0)
    if kept == "mosaics":
        batch = MosaicBatch(
            batch.mosaics, batch.boxes, batch.singles[:0], batch.captions[:4], batch.keys[:4]
        )
    else:
        batch = MosaicBatch(
            batch.mosaics[:0], [], batch.singles, batch.captions[4:], batch.keys[4:]
        )
    out = ClimTask(tiny_model()).loss(batch)
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    # A pass over a blank image of the missing kind changes neither loss nor gradients.
    task = ClimTask(tiny_model(), lockstep=True)
    again = task.loss(batch)
    again["loss"].backward()
    assert again["loss"].item() == out["loss"].item()
    assert all(torch.isfinite(p.grad).all() for p in task.trainable_parameters().values())


def test_duplicate_captions_are_no_negatives_only_when_asked():
    batch = unit(0)
    batch.captions[:] = ["same"] * len(batch)
    masked = ClimTask(tiny_model(), mask_duplicate_captions=True).loss(batch)["loss"]
    plain = ClimTask(tiny_model()).loss(batch)["loss"]
    assert masked.item() == pytest.approx(0.0, abs=float32_sum(500))  # no negatives are left
    # Equal texts: uniform over n texts from an image, and something above zero from a text.
    assert plain.item() > math.log(len(batch)) / 2


def test_caption_ids_are_equal_for_equal_captions_only():
    ids = caption_ids(["a cat", "a dog", "a cat", ""])
    assert ids.dtype == torch.int64
    assert ids[0] == ids[2]
    assert len(set(ids.tolist())) == 3
    assert (ids >= 0).all()


class CountingModel:
    """A text tower that counts what it encodes."""

    def __init__(self):
        self.seen = []
        self.device = torch.device("cpu")

    def tokenizer(self, captions):
        self.seen += captions
        return torch.tensor([[float(len(c)), 1.0] for c in captions])

    def drop_padding(self, tokens):
        return tokens

    def encode_text(self, tokens):
        return F.normalize(tokens, dim=-1)

    def named_parameters(self):
        return iter(())


def test_text_cache_encodes_once_and_forgets_the_least_recently_used():
    model = CountingModel()
    features = TextFeatures(model, 2)
    rows = features(["a", "bb", "a"])
    assert model.seen == ["a", "bb"]
    torch.testing.assert_close(rows[0], rows[2])
    features(["a"])
    features(["ccc"])  # pushes out "bb"
    assert model.seen == ["a", "bb", "ccc"]
    features(["a", "bb"])
    assert model.seen == ["a", "bb", "ccc", "bb"]


def test_text_cache_of_zero_keeps_nothing():
    model = CountingModel()
    features = TextFeatures(model, 0)
    features(["a"])
    features(["a"])
    assert model.seen == ["a", "a"]


def test_trainable_text_tower_gets_gradients_and_no_cache():
    model = tiny_model()
    model.clip.text_projection.requires_grad_(True)
    task = ClimTask(model)
    assert not task.text_features.is_frozen()
    task.loss(unit(0))["loss"].backward()
    assert model.clip.text_projection.grad.abs().sum() > 0


def test_autocast_leaves_similarities_in_float32():
    task = ClimTask(tiny_model())
    batch = unit(0)
    full = task.loss(batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = task.loss(batch)["loss"]
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(full.item(), rel=2e-2)


def test_bounds_name_the_logit_scale():
    assert ClimTask(tiny_model()).parameter_bounds == {"clip.logit_scale": (0.0, math.log(100))}


@pytest.mark.parametrize("options", [{"box_mode": "crops"}, {"text_cache": -1}])
def test_illegal_options_are_rejected(options):
    with pytest.raises(ValueError, match="use "):
        ClimTask(tiny_model(), **options)

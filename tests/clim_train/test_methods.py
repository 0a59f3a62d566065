"""Every method on every kind of tower: what trains gets a gradient, and the loss of a fixed batch
falls."""

import copy

import pytest
import torch
from clim_data import BoxBatch, CropBatch, MosaicBatch, MosaicConfig, plan_mosaics
from clim_train.engine.optim import build_optimizer
from clim_train.methods.clim import ClimTask
from clim_train.methods.clipself import ClipSelfTask
from clim_train.methods.regionclip import RegionClipTask
from clim_train.options.sections import OptimConfig
from tiny_towers import build_clip, build_eva, build_timm, build_vit
from tiny_training import box_unit, class_embeddings, crop_unit
from torch._subclasses.fake_tensor import FakeTensorMode

METHODS = ("clim", "clipself", "regionclip")
TOWERS = ("vit", "eva", "resnet", "timm_convnext", "timm_cls")
WITH_ATTENTION = ("vit", "eva", "resnet", "timm_cls")
CLASSES = 9


def build_tower(name, golden):
    if name.startswith("timm_"):
        return build_timm(name.removeprefix("timm_"))
    if name == "vit":
        return build_vit()
    # Weights of the golden cases: those of a new ResNet end every branch with a norm of zero.
    return (
        build_eva(golden("case01_eva_b")) if name == "eva" else build_clip(golden("case03_resnet"))
    )


def batch_captions():
    return [f"thing {i}" for i in range(6)]


def mosaic_batch(canvas_px, single_px):
    config = MosaicConfig(canvas_px=canvas_px, single_px=single_px, mix={2: 1}, min_singles=2)
    noise = torch.Generator().manual_seed(5)
    mosaics, singles = (
        torch.randint(0, 256, (n, 3, px, px), generator=noise, dtype=torch.uint8)
        for n, px in ((1, canvas_px), (2, single_px))
    )
    captions = batch_captions()
    return MosaicBatch(mosaics, plan_mosaics(6, config).boxes(config), singles, captions, captions)


def build_method(method, model, mode):
    """A task with its trainable part set as a run would set it, and a batch for it."""
    path = "all" if method == "clim" else {"align": "dense", "attention": "attention"}[mode]
    native, px = model.image_size[0], 4 * model.stride
    if method == "clim":
        length = getattr(model.clip, "context_length", None) or model.clip.text.context_length
        rows = {
            text: [1, i + 2, i + 8, 15] + [0] * (length - 4)
            for i, text in enumerate(batch_captions())
        }
        model.tokenizer = lambda texts: torch.tensor([rows[text] for text in texts])
        task, batch = ClimTask(model, box_mode=mode), mosaic_batch(px, native)
    elif method == "clipself":
        task = ClipSelfTask(model, copy.deepcopy(model), box_mode=mode)
        batch = crop_unit(1, (3, 0, 2), px=px, crop_px=native)
    else:
        task = RegionClipTask(
            model, class_embeddings(CLASSES, model.embed_dim), box_mode=mode, sampled_classes=None
        )
        batch = box_unit(1, (3, 0, 2), px=px, classes=CLASSES)
    model.freeze(99, path=path)
    return task, batch


def train(task, batch, steps, lr):
    """Losses of AdamW steps on one batch; after the first backward pass every trainable parameter
    has a gradient."""
    parameters, losses = task.trainable_parameters(), []
    optimizer = build_optimizer(parameters, OptimConfig(lr=lr, betas=(0.9, 0.999), eps=1e-6))
    for step in range(steps):
        optimizer.zero_grad()
        loss = task.loss(batch)["loss"]
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            assert [name for name, p in parameters.items() if p.grad is None] == []
            assert [name for name, p in parameters.items() if not p.grad.any()] == []
        optimizer.step()
    return losses


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_tower(method, tower, golden):
    task, batch = build_method(method, build_tower(tower, golden), "align")
    outside = {
        name: p.clone()
        for name, p in task.model.named_parameters()
        if name not in task.trainable_parameters()
    }
    losses = train(task, batch, 6, lr=2e-3)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert losses[-1] < 0.95 * losses[0]
    assert losses[-1] < losses[2]
    now = dict(task.model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in outside.items())


@pytest.mark.parametrize("tower", WITH_ATTENTION)
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_the_attention_readout(method, tower, golden):
    task, batch = build_method(method, build_tower(tower, golden), "attention")
    losses = train(task, batch, 4, lr=3e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("tower", "mode"),
    [*((t, "align") for t in TOWERS), *((t, "attention") for t in WITH_ATTENTION)],
)
@pytest.mark.parametrize("method", ["clipself", "regionclip"])
def test_batch_without_boxes_reaches_every_parameter_of_the_tower(method, tower, mode, golden):
    """Under ZeRO-3 a rank without boxes has to ask for the same weights as the others, in both
    passes."""
    model = build_tower(tower, golden)
    task, _ = build_method(method, model, mode)
    px = 4 * model.stride
    empty = crop_unit(1, (0, 0), px=px) if method == "clipself" else box_unit(1, (0, 0), px=px)
    task.loss(empty)["loss"].backward()
    assert [name for name, p in task.trainable_parameters().items() if p.grad is None] == []


@pytest.mark.parametrize("mode", ["align", "attention"])
@pytest.mark.parametrize("method", ["clipself", "regionclip"])
def test_step_never_looks_at_values(method, mode, golden):
    """Fake tensors have none: what would make a GPU wait for the host (`.item()`, `nonzero`) fails
    on them."""
    task, _ = build_method(method, build_vit(), mode)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images, boxes = (
            torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
            [torch.zeros(3, 4), torch.zeros(0, 4)],
        )
        if method == "clipself":
            batch = CropBatch(
                images, boxes, torch.zeros(3, 3, 32, 32, dtype=torch.uint8), ["a", "b"]
            )
        else:
            batch = BoxBatch(images, boxes, torch.zeros(3, dtype=torch.int64), ["a", "b"])
        task.loss(batch)["loss"].backward()
    assert all(p.grad is not None for p in task.trainable_parameters().values())

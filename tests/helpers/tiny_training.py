"""What the training tests train: tiny towers open_clip knows by name, a loader made of noise, short
configurations."""

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path

import open_clip
import torch
from clim_data import BoxBatch, CropBatch, MosaicBatch, MosaicConfig, plan_mosaics
from clim_models import RegionModel, create_model
from clim_train import (
    ClimTask,
    EngineConfig,
    OptimConfig,
    PairDataConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
    Trainer,
)
from clim_train.run import AgreedError
from timm.models import register_model
from timm.models.eva import Eva

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT, EVA = "tiny-train-vit", "tiny-train-eva"
MOSAIC = MosaicConfig(canvas_px=32, single_px=16, mix={2: 1}, min_singles=2)
UNIT = 6  # images of one unit: a 2x2 mosaic and two singles


@cache
def register_tiny_towers() -> None:
    """Makes `create_model(VIT)` and `create_model(EVA)` work."""

    def tiny_train_eva(pretrained=False, **options):
        options = {k: v for k, v in options.items() if not k.startswith(("pretrained", "cache"))}
        sizes = {
            "img_size": 16,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "mlp_ratio": 2.0,
        }
        kind = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
        return Eva(**sizes, **kind, use_rot_pos_emb=True, ref_feat_shape=(16, 16), **options)

    tiny_train_eva.__module__ = __name__
    register_model(tiny_train_eva)
    vit = {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    eva = {
        "image_size": 16,
        "timm_model_name": "tiny_train_eva",
        "timm_pool": "token",
        "timm_proj": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, vision in ((VIT, vit), (EVA, eva)):
            config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
            if name == EVA:
                config["custom_text"] = True
            (Path(folder) / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)


@cache
def tokenizer():
    """One for all models: reading the vocabulary takes longer than the training of a test."""
    return open_clip.get_tokenizer(VIT)


def tiny_model(name: str = VIT, *, unlocked_blocks: int = 2) -> RegionModel:
    """A model with random weights, the same each time."""
    register_tiny_towers()
    torch.manual_seed(7)
    model = create_model(name)
    model.tokenizer = tokenizer()
    model.freeze(unlocked_blocks)
    return model


def unit(index: int) -> MosaicBatch:
    """Six images of noise and their captions; some captions return in other units."""
    noise = torch.Generator().manual_seed(index)
    mosaics = torch.randint(0, 256, (1, 3, 32, 32), generator=noise, dtype=torch.uint8)
    singles = torch.randint(0, 256, (2, 3, 16, 16), generator=noise, dtype=torch.uint8)
    captions = [f"thing {(index * 5 + i) % 9}" for i in range(UNIT)]
    return MosaicBatch(
        mosaics, plan_mosaics(UNIT, MOSAIC).boxes(MOSAIC), singles, captions, list(captions)
    )


def join(units: list[MosaicBatch]) -> MosaicBatch:
    """The batch of one process that has the units of several."""
    captions = [c for u in units for c in u.captions[:4]] + [
        c for u in units for c in u.captions[4:]
    ]
    mosaics, singles = (
        torch.cat([getattr(u, kind) for u in units]) for kind in ("mosaics", "singles")
    )
    return MosaicBatch(
        mosaics, [box for u in units for box in u.boxes], singles, captions, list(captions)
    )


def without_singles(batch: MosaicBatch) -> MosaicBatch:
    """Only the mosaic of a unit."""
    return MosaicBatch(
        batch.mosaics, batch.boxes, batch.singles[:0], batch.captions[:4], batch.keys[:4]
    )


def boxed_images(
    index: int, counts: tuple[int, ...], px: int = 32
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Images of noise (B, 3, px, px) with so many boxes in each."""
    noise = torch.Generator().manual_seed(index)
    images = torch.randint(0, 256, (len(counts), 3, px, px), generator=noise, dtype=torch.uint8)
    corners = [torch.rand(n, 2, 2, generator=noise).sort(1).values for n in counts]
    return images, [
        torch.stack([c[:, 0] * 0.6, c[:, 1] * 0.4 + 0.6], 1).flatten(1) for c in corners
    ]


def crop_unit(index: int, counts: tuple[int, ...], *, px: int = 32, crop_px: int = 16) -> CropBatch:
    """A batch for CLIPSelf: noise, boxes, and crops of other noise."""
    images, boxes = boxed_images(index, counts, px)
    noise = torch.Generator().manual_seed(index + 1000)
    crops = torch.randint(
        0, 256, (sum(counts), 3, crop_px, crop_px), generator=noise, dtype=torch.uint8
    )
    return CropBatch(images, boxes, crops, [f"{index}-{i}" for i in range(len(counts))])


def box_unit(index: int, counts: tuple[int, ...], *, px: int = 32, classes: int = 9) -> BoxBatch:
    """A batch for RegionCLIP-style training: noise, boxes, and labels drawn from so many
    classes."""
    images, boxes = boxed_images(index, counts, px)
    labels = torch.randint(
        classes, (sum(counts),), generator=torch.Generator().manual_seed(index + 2000)
    )
    return BoxBatch(images, boxes, labels, [f"{index}-{i}" for i in range(len(counts))])


def class_embeddings(classes: int, channels: int = 16) -> torch.Tensor:
    """(K, C) rows of any length, the same each time."""
    return torch.randn(classes, channels, generator=torch.Generator().manual_seed(3))


class NoiseLoader:
    """`length` batches per epoch; two units per batch over all ranks, whatever their number (1 or
    2).

    uneven: the second unit has no single images.
    """

    def __init__(self, length: int = 3, rank: int = 0, world_size: int = 1, uneven: bool = False):
        self.length, self.rank, self.world_size, self.uneven = length, rank, world_size, uneven
        self.epoch = self.position = 0

    def __len__(self):
        return self.length

    def __iter__(self):
        epoch = self.epoch
        for i in range(self.position, self.length):
            torch.rand(1)  # as a DataLoader does
            units = [unit(2 * (epoch * self.length + i) + k) for k in range(2)]
            if self.uneven:
                units[1] = without_singles(units[1])
            self.position = i + 1
            if self.position == self.length:
                self.epoch, self.position = epoch + 1, 0
            yield join(units) if self.world_size == 1 else units[self.rank]

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def tiny_config(folder, *, steps: int = 6, world_size: int = 1, **engine) -> TrainConfig:
    """Six steps with a checkpoint every two, every step logged; stage 3 takes every weight away
    between its uses."""
    return TrainConfig(
        data=PairDataConfig(batch_size=2 * UNIT // world_size, mosaic=MOSAIC),
        # A large eps keeps AdamW from blowing rounding noise up to whole steps.
        optim=OptimConfig(lr=1e-2, eps=1e-3, clip_norm=1.0),
        schedule=ScheduleConfig(steps=steps, warmup_steps=2),
        engine=EngineConfig(
            **{"zero_stage": 1, "precision": "fp32", "device": "cpu", "whole_below": 0, **engine}
        ),
        run=RunConfig(
            folder=str(folder), log_every=1, save_every=2, alpha=0.7, bar=False, tensorboard=False
        ),
    )


def tiny_trainer(
    config: TrainConfig, *, model: RegionModel | None = None, resume: bool = False, **options
) -> Trainer:
    """A trainer on the tiny ViT and the noise loader of this rank."""
    loader = NoiseLoader(
        **{name: options.pop(name) for name in ("rank", "world_size", "uneven") if name in options}
    )
    task = ClimTask(model or tiny_model(), lockstep=config.engine.zero_stage == 3)
    return Trainer(config, task, loader, resume=resume, **options)


class Interrupted(AgreedError):
    """Stands for a killed process; all ranks raise it at the same step."""


def fit_until(trainer: Trainer, step: int) -> None:
    """Trains until the checkpoint of `step` is written, then stops as if killed."""
    save = trainer.save

    def save_and_stop():
        save()
        if trainer.step == step:
            raise Interrupted

    trainer.save = save_and_stop
    try:
        trainer.fit()
    except Interrupted:
        trainer.close()


class Crossed:
    """A task whose graph depends on the rank: rank 1 runs two layers in the other order, and the
    third not at all."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(3))

    def trainable_parameters(self) -> dict:
        return dict(self.model.named_parameters())

    def loss(self, rank: int) -> dict:
        first, second, third = self.model
        x = torch.eye(3)
        y = third(second(first(x))) if rank == 0 else first(second(x))
        return {"loss": y.square().sum()}


SMALL = [
    "--model.pretrained=None",
    "--data.batch-size=31",
    "--data.mosaic.canvas-px=48",
    "--data.mosaic.single-px=16",
    "--data.mosaic.min-singles=1",
    "--data.workers=0",
    "--schedule.steps=2",
    "--schedule.warmup-steps=1",
    "--engine.device=cpu",
    "--run.log-every=1",
    "--run.no-bar",
    "--run.no-tensorboard",
]


def small_command(name, shards, folder, *more) -> list[str]:
    """Arguments of `clim-train` that train recipe `name` for two steps on a tiny tower."""
    tower = EVA if "eva" in name else VIT
    return [
        name,
        f"--model.name={tower}",
        "--data.shards",
        str(shards),
        f"--run.folder={folder}",
        *SMALL,
        *more,
    ]


def with_run(config: TrainConfig, **changes) -> TrainConfig:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


def with_engine(config: TrainConfig, **changes) -> TrainConfig:
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, **changes))

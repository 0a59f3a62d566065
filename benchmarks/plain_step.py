"""One training step of clim-train in one process, next to a plain PyTorch loop: what the engine
costs.

Both sides train the same model with the same loss on the same batch: `Engine`, as `Trainer` drives
it, and `loss.backward()` with torch's AdamW on the same parameters, as one would write it by hand.
With one process there is nothing to shard or to exchange, so the engine should cost nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import side_by_side as sbs
import torch
import torch.distributed as dist
from clim_data import CropBatch, MosaicConfig, SampleRandom, build_batch, plan_mosaics
from clim_models import copy_image_side, create_model
from clim_train import (
    ClimConfig,
    ClimTask,
    ClipSelfConfig,
    ClipSelfTask,
    CropDataConfig,
    EngineConfig,
    OptimConfig,
    PairDataConfig,
    Task,
    TrainConfig,
)
from clim_train.engine import Engine, build_optimizer, start_distributed
from clim_train.options import choose_device
from input_path import samples

LEARNING_RATE = 1e-6
SOURCE_SIZE = (480, 640)
MAX_SHARE = 1.02
"""Time and memory of ours that are wanted, as a fraction of the plain loop's."""


@dataclass(frozen=True)
class Case:
    """A method on a model: `images` per step of `image_px`, `unlocked_blocks` of the tower
    train."""

    method: str
    model: str
    images: int
    image_px: int
    unlocked_blocks: int
    device: str

    @property
    def mosaic(self) -> MosaicConfig:
        return MosaicConfig(canvas_px=self.image_px, single_px=self.image_px // 2)

    @property
    def config(self) -> TrainConfig:
        clim = self.method == "CLIM"
        return TrainConfig(
            data=(PairDataConfig if clim else CropDataConfig)(batch_size=self.images),
            task=ClimConfig() if clim else ClipSelfConfig(),
            optim=OptimConfig(lr=LEARNING_RATE),
            engine=EngineConfig(precision="fp32", device=torch.device(self.device).type),
        )


class EngineStep:
    """An optimizer step of the engine. One engine can be open in a process."""

    def __init__(self, case: Case):
        device = join_group(case.config)
        self.batch = batch_of(case).to(device)
        self.engine = Engine(task_of(case), case.config, device=device)

    def __call__(self) -> float:
        """Return the loss before the step."""
        scalars = self.engine.forward_backward(self.batch)
        self.engine.step(LEARNING_RATE)
        return scalars["loss"].item()

    def close(self) -> None:
        self.engine.close()


class PlainStep:
    """An optimizer step of a loop that knows no engine."""

    def __init__(self, case: Case):
        device = torch.device(case.device)
        self.batch, self.task = batch_of(case).to(device), task_of(case)
        self.task.model.to(device)
        self.optimizer = build_optimizer(
            self.task.trainable_parameters(), case.config.optim, fused=device.type == "cuda"
        )

    def __call__(self) -> float:
        """Return the loss before the step."""
        loss = self.task.loss(self.batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def join_group(config: TrainConfig) -> torch.device:
    """Make a process group of one; a process that measures memory must not use its parent's
    address."""
    if not dist.is_initialized():
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
    device = choose_device(config.engine)
    start_distributed(device)
    return device


def task_of(case: Case) -> Task:
    """Build the method on a model with random weights, the same each time."""
    torch.manual_seed(0)
    model = create_model(case.model)
    model.freeze(case.unlocked_blocks)
    if case.method == "CLIM":
        return ClimTask(model)
    return ClipSelfTask(model, copy_image_side(model))


def batch_of(case: Case):
    """Build the batch: mosaics of JPEGs, or noise with a grid of crops."""
    if case.method == "CLIM":
        return build_batch(
            samples(case.images, *SOURCE_SIZE), SampleRandom(seed=0, epoch=0), case.mosaic
        )[0]
    noise = torch.Generator().manual_seed(0)
    grid = [(x / 3, y / 3, (x + 1) / 3, (y + 1) / 3) for y in range(3) for x in range(3)]
    crop_px = case.image_px // 2
    pixels = partial(torch.randint, 0, 256, dtype=torch.uint8, generator=noise)
    return CropBatch(
        images=pixels((case.images, 3, case.image_px, case.image_px)),
        boxes=[torch.tensor(grid)] * case.images,
        crops=pixels((case.images * len(grid), 3, crop_px, crop_px)),
        keys=[str(i) for i in range(case.images)],
    )


def same_loss(ours: float, other: float) -> dict[str, float]:
    """Raise ValueError unless the first step of both sides had the same loss."""
    return sbs.largest_difference(torch.tensor(ours), torch.tensor(other), tolerance=1e-5)


def comparison(case: Case) -> sbs.Comparison:
    """Set the engine's step next to the plain one."""
    images = f"{case.images} images"
    if case.method == "CLIM":
        plan = plan_mosaics(case.images, case.mosaic)
        images += f" in {len(plan.sides)} mosaics and {plan.num_singles} single"
    return sbs.Comparison(
        name=case.method,
        sizes=f"{case.model}, {images}, {case.image_px} px, {case.unlocked_blocks} blocks train, fp32, one process",
        ours=sbs.Candidate("clim-train", partial(EngineStep, case)),
        other=sbs.Candidate("plain loop", partial(PlainStep, case)),
        agree=same_loss,
        target=round(1 / MAX_SHARE, 2),
        memory_target=MAX_SHARE,
        items=case.images,
        item="sample",
    )


def cases(model: str, image_px: int, unlocked_blocks: int, device: str) -> list[Case]:
    """List both methods on one model."""
    clim = Case("CLIM", model, 29, image_px, unlocked_blocks, device)
    clipself = Case("CLIPSelf", model, 2, image_px, unlocked_blocks, device)
    return [clim, clipself]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=7)
    parser.add_argument("--model", default="ViT-B-16", help="open_clip name")
    parser.add_argument("--image-px", type=int, default=512, help="side of a mosaic or image")
    parser.add_argument("--unlocked-blocks", type=int, default=12)
    args = parser.parse_args(argv)
    both = cases(args.model, args.image_px, args.unlocked_blocks, args.device)
    return sbs.run("plain_step", [comparison(case) for case in both], sbs.settings_from(args))


if __name__ == "__main__":
    main()

"""One CLIM training step on the same images, tiled as mosaics or left single: samples per second.

The step is the real one: `ClimTask` in the DeepSpeed engine that `Trainer` uses, on batches that
`build_batch` made from JPEG files: forward, backward, optimizer. Loading is not in it; it runs
beside the step, and input_path.py measures it. There is no target: mosaics buy region features, and
this is their price or their discount.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import side_by_side as sbs
import torch
import torch.distributed as dist
from clim_data import MosaicBatch, MosaicConfig, SampleRandom, build_batch, plan_mosaics
from clim_models import create_model
from clim_train import ClimTask, EngineConfig, OptimConfig, PairDataConfig, TrainConfig
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device
from input_path import samples

LEARNING_RATE = 1e-6
SOURCE_SIZE = (480, 640)


@dataclass(frozen=True)
class Case:
    """A model and a batch: `images` of which at least `min_singles` stay single, the others in
    mosaics."""

    name: str
    model: str
    images: int
    canvas_px: int
    single_px: int
    min_singles: int = 0
    unlocked_blocks: int = 6
    precision: str = "fp32"
    device: str = "cpu"

    def layout(self, mosaics: bool) -> MosaicConfig:
        sizes = {"canvas_px": self.canvas_px, "single_px": self.single_px}
        return (
            MosaicConfig(**sizes, min_singles=self.min_singles)
            if mosaics
            else MosaicConfig(**sizes, mix={})
        )


class Step:
    """One optimizer step on one batch, called again and again.

    Only one DeepSpeed engine can be open in a process, so both sides of a comparison share it: the
    steps have the same parameters and the same optimizer, only their batches differ.
    """

    engine: Engine | None = None
    users = 0

    def __init__(self, case: Case, batch: MosaicBatch):
        self.batch = batch
        if Step.engine is None:
            Step.engine = open_engine(case)
        Step.users += 1
        # Kept from here on, as after the first epoch of a frozen text tower.
        Step.engine.task.text_features(batch.captions)

    def __call__(self) -> tuple[int, float]:
        """(samples, loss)"""
        scalars = Step.engine.forward_backward(self.batch.to(Step.engine.device))
        Step.engine.step(LEARNING_RATE)
        return len(self.batch), scalars["loss"].item()

    def close(self) -> None:
        Step.users -= 1
        if not Step.users:
            Step.engine.close()
            Step.engine = None


def open_engine(case: Case) -> Engine:
    """A model with random weights in an engine, the same each time."""
    config = TrainConfig(
        data=PairDataConfig(batch_size=case.images),
        optim=OptimConfig(lr=LEARNING_RATE),
        engine=EngineConfig(precision=case.precision, device=torch.device(case.device).type),
    )
    torch.manual_seed(0)
    if not dist.is_initialized():
        # A process that measures memory inherits the address of its parent's group of one; it needs
        # its own.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
    device = choose_device(config.engine)
    start_distributed(device)
    model = create_model(case.model)
    model.freeze(case.unlocked_blocks)
    return Engine(ClimTask(model), config, device=device)


def build_step(case: Case, mosaics: bool) -> Step:
    batch, _ = build_batch(
        samples(case.images, *SOURCE_SIZE), SampleRandom(seed=0, epoch=0), case.layout(mosaics)
    )
    return Step(case, batch)


def same_samples(ours: tuple[int, float], other: tuple[int, float]) -> dict[str, float]:
    """Raises ValueError unless both steps trained on the same number of samples with a finite
    loss."""
    if ours[0] != other[0]:
        raise ValueError(f"steps have {ours[0]} and {other[0]} samples: not the same work")
    if not all(abs(loss) < float("inf") for _, loss in (ours, other)):
        raise ValueError(f"losses are {ours[1]} and {other[1]}: training went wrong")
    return {"samples": ours[0], "loss with mosaics": ours[1], "loss without": other[1]}


def comparison(case: Case) -> sbs.Comparison:
    plan = plan_mosaics(case.images, case.layout(mosaics=True))
    laid_out = f"{len(plan.sides)} mosaics of {case.canvas_px} px from {plan.num_tiles}"
    laid_out += f", {plan.num_singles} single" if plan.num_singles else ""
    return sbs.Comparison(
        name=case.name,
        sizes=f"{case.model}, {case.images} images ({laid_out}; or all single, {case.single_px} px), "
        f"{case.unlocked_blocks} blocks train, {case.precision}",
        ours=sbs.Candidate("mosaics", partial(build_step, case, mosaics=True)),
        other=sbs.Candidate("all single", partial(build_step, case, mosaics=False)),
        agree=same_samples,
        items=case.images,
        item="sample",
    )


def standard_cases(precision: str, device: str) -> list[Case]:
    """The paper's canvas, with a tower that two cores can train, and clim-tiny at small sizes."""
    where = {"precision": precision, "device": device}
    return [
        Case("canvas of the paper", "ViT-B-32", 29, 1024, 224, **where),
        Case("clim-tiny", "clim-tiny", 144, 192, 64, min_singles=72, unlocked_blocks=100, **where),
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    parser.add_argument("--precision", choices=("fp32", "amp_bf16", "bf16"), default="fp32")
    own = parser.add_argument_group("a case of your own, instead of the two standard ones")
    own.add_argument("--model", help="open_clip name")
    own.add_argument("--images", type=int, default=29, help="images per step")
    own.add_argument(
        "--min-singles", type=int, default=0, help="images that stay single beside the mosaics"
    )
    own.add_argument("--canvas-px", type=int, default=1024, help="side of a mosaic")
    own.add_argument("--single-px", type=int, default=224, help="side of a single image")
    own.add_argument("--unlocked-blocks", type=int, default=6)
    args = parser.parse_args(argv)
    cases = standard_cases(args.precision, args.device)
    if args.model is not None:
        sizes = (
            args.images,
            args.canvas_px,
            args.single_px,
            args.min_singles,
            args.unlocked_blocks,
        )
        cases = [Case("own case", args.model, *sizes, args.precision, args.device)]
    return sbs.run("training_step", [comparison(case) for case in cases], sbs.settings_from(args))


if __name__ == "__main__":
    main()

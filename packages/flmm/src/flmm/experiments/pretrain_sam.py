"""Make the demo SAM that ships with flmm: ``python -m flmm.experiments.pretrain_sam``.

From random weights, all parts of a SamModel learn to find the mask of a thing, or of the two of a
pair, from a box, a rough mask or both. No name is given, and drawings of the held-out vendor are
not among the scenes.
"""

import dataclasses
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data.command_line import CommandParser, add_option
from clim_models.losses import mask_iou, mask_losses
from PIL import Image
from torch import Tensor, nn

from flmm.adapters.preparers import normalise
from flmm.demo.model_files import save_weights
from flmm.demo.sam import COMMAND, PATCH_PX, WEIGHTS, build_demo_sam, random_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.experiments.captions import learning_rate, optimizers_of, set_learning_rate, take_step
from flmm.experiments.pretrain import run_with_bar
from flmm.experiments.sam_objects import ObjectBatch, ObjectScenes, jittered_boxes, rough_logits
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.sam.geometry import mask_boxes
from flmm.refiners.sam.kinds import IMAGENET
from flmm.refiners.sam.prompts import SamPrompts
from flmm.refiners.sam.refiner import SamRefiner


@dataclasses.dataclass(frozen=True)
class SamTraining:
    """How the demo SAM is trained: each step sees `masks` masks in each of `batch_size` new scenes.

    true_boxes: share of prompts with a jittered true box; the others have the box of the rough
    mask, as in F-LMM. box_only: share of steps whose prompts are jittered true boxes alone.
    """

    steps: int = 2500
    batch_size: int = 8
    masks: int = 3
    lr: float = 2e-3
    warmup_steps: int = 60
    weight_decay: float = 0.02
    true_boxes: float = 0.4
    box_only: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.masks) < 1:
            raise ValueError(
                f"steps={self.steps}, batch_size={self.batch_size}, masks={self.masks}: at least 1 "
                "each"
            )


def pretrain_sam(output: Path, options: SamTraining, *, held_out: int = 150) -> dict[str, Any]:
    """Train from random weights, write them to `output`, and return the account that is stored with
    them."""
    torch.manual_seed(options.seed)
    sam = random_demo_sam(options.seed)
    begin = time.monotonic()
    loss = run_with_bar("demo SAM", train_sam(sam, options), options.steps, "loss")
    seconds = round(time.monotonic() - begin)
    save_weights(sam, output, {})
    sam = build_demo_sam(output)  # measured as it is kept
    about = {
        "command": COMMAND,
        "options": dataclasses.asdict(options),
        "seconds": seconds,
        "loss": round(loss, 4),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        **{which: measure(sam, measured_scenes(which, held_out)) for which in ("val", "test")},
    }
    save_weights(sam, output, about)
    return about


def train_sam(sam: Any, options: SamTraining) -> Iterator[float]:
    """Train all parts of a SamModel in place, except its positional encoding; yields the loss of
    every step."""
    refiner = SamRefiner(sam, use_text=False)
    by_box = SamRefiner(sam, use_text=False, use_mask=False)  # of the same parts
    refiner.frozen_encoder().requires_grad_(True)  # what a refiner alone never trains

    things = ThingsHead(refiner.prompt_encoder.hidden_size)
    named = [
        (name, p)
        for name, p in nn.ModuleList([refiner, things]).named_parameters()
        if p.requires_grad
    ]
    optimizers = optimizers_of(named, options)

    scenes = ObjectScenes(options.seed)
    generator = torch.Generator().manual_seed(options.seed)

    for step in range(options.steps):
        set_learning_rate(optimizers, learning_rate(step, options))
        batch = scenes.batch(options.batch_size, options.masks)
        features = encode_images(refiner, batch.images)
        if torch.rand((), generator=generator) < options.box_only:
            loss = prompted_loss(by_box, features, batch, true_boxes=1.0, generator=generator)
        else:
            loss = prompted_loss(
                refiner, features, batch, true_boxes=options.true_boxes, generator=generator
            )
        take_step(
            optimizers, loss + mask_loss(things(features), batch.things), [p for _, p in named]
        )
        yield loss.item()

    refiner.requires_grad_(False)


class ThingsHead(nn.Module):
    """Predicts the pixels of all things: (B, D, h, w) image embedding -> (B, P, P) logits, each
    position its own pixels.

    It exists only while SAM trains: through it the image encoder learns outlines sooner than
    through prompts.
    """

    def __init__(self, width: int):
        super().__init__()
        self.pixels = nn.Conv2d(width, PATCH_PX**2, 1)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.pixels(features), PATCH_PX)[:, 0]


def encode_images(refiner: SamRefiner, images: Tensor) -> Tensor:
    """Return the image embeddings (B, D, h, w) of pixels 0..255 (B, 3, P, P), with gradients."""
    mean, std = IMAGENET
    values = normalise(images, [x / 255 for x in mean], [x / 255 for x in std])
    features, _ = refiner.frozen_encoder()(values)
    return features


def prompted_loss(
    refiner: SamRefiner,
    features: Tensor,
    batch: ObjectBatch,
    *,
    true_boxes: float,
    generator: torch.Generator,
) -> Tensor:
    """Compute the loss of the masks that SAM gives for rough ones: a scalar. `true_boxes`: as in
    SamTraining."""
    per_scene, side = batch.masks.shape[1:3]
    masks, others = batch.masks.flatten(0, 1), batch.others.flatten(0, 1)  # (N, P, P)
    embeddings = [ImageEmbedding(f, (side, side)) for f in features]
    coarse = rough_logits(masks, others, generator)
    prompts = refiner.encode_prompts([e.size for e in embeddings], coarse.split(per_scene))
    boxes = jittered_boxes(mask_boxes(masks), generator, limit=side)
    jittered = torch.rand(len(masks), 1, generator=generator) < true_boxes
    prompts = with_boxes(refiner, prompts, torch.where(jittered, boxes, prompts.boxes))
    logits, _ = refiner.decode(embeddings, prompts, [per_scene] * len(features))  # (N, 1, P, P)
    return mask_loss(logits[:, 0], masks)


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute cross-entropy plus dice of (N, P, P) logits: a scalar."""
    losses = mask_losses([logits], [masks])
    return losses["loss_mask"] + losses["loss_dice"]


def with_boxes(refiner: SamRefiner, prompts: SamPrompts, boxes: Tensor) -> SamPrompts:
    """Return prompts without words, their boxes replaced by these: (N, 4) XYXY of the padded
    square."""
    corners, _ = refiner.prompt_encoder(None, None, boxes[:, None], None)  # (N, 1, 2, D)
    return dataclasses.replace(prompts, boxes=boxes, sparse=corners[:, 0])


@dataclasses.dataclass(frozen=True)
class MeasuredScene:
    """A scene to be measured by: its picture, true masks bool (n, P, P), and which of them are of
    two things."""

    image: Image.Image
    masks: Tensor
    plural: tuple[bool, ...]


def measured_scenes(which: str, count: int, *, seed: int = 7) -> list[MeasuredScene]:
    """Demo scenes that are not trained on: "val", or "test" of the vendor that is never seen."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        read = compose_demo_scenes(Path(folder) / which, which, count=count, seed=seed).read()
        for number in range(count):
            sample = read[number]
            image, masks = sample.load()
            plural = tuple(phrase.is_plural for phrase in sample.phrases)
            found.append(
                MeasuredScene(image, torch.from_numpy(np.ascontiguousarray(masks)), plural)
            )
    return found


@torch.no_grad()
def measure(sam: Any, scenes: Sequence[MeasuredScene], *, seed: int = 0) -> dict[str, float]:
    """Measure the mean IoU with the true masks of one thing ("single") and of two ("plural").

    "rough": of rough masks alone. "refined": of SAM's masks for them and their boxes, as
    `SamRefiner` does it. "boxed": of SAM's masks for them and jittered true boxes.
    """
    refiner = SamRefiner(sam, use_text=False).eval()
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {}
    for scene in scenes:
        masks = scene.masks
        coarse = rough_logits(masks, masks.roll(1, 0) & (len(masks) > 1), generator)
        (embedding,) = refiner.embed([scene.image])
        prompts = refiner.encode_prompts([embedding.size], [coarse])
        boxes = jittered_boxes(mask_boxes(masks), generator, limit=refiner.square.edge)
        ious = {"rough": mask_iou(prompts.binary[0].float(), masks)}
        for name, given in (("refined", prompts), ("boxed", with_boxes(refiner, prompts, boxes))):
            ious[name] = mask_iou(refiner.decode([embedding], given, [len(masks)])[0][:, 0], masks)
        for name, values in ious.items():
            for plural, value in zip(scene.plural, values.tolist(), strict=True):
                found.setdefault(f"{name} {'plural' if plural else 'single'}", []).append(value)
    return {name: round(sum(values) / len(values), 4) for name, values in sorted(found.items())}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the pretraining."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    add_option(parser, "--out", short="-o", old=["--output"], default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=SamTraining.steps)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    about = pretrain_sam(args.out, SamTraining(steps=args.steps, seed=args.seed))
    print(f"{about['seconds']} s; val {about['val']}; test {about['test']}; weights: {args.out}")


if __name__ == "__main__":
    main()

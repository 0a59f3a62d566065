"""The arms of the quick start: the same start, drawings, optimizer and steps, and a different loss.

image: every drawing of a batch is a single image. tiles: 87 of the 144 are regions, each on a
canvas of its own. clim: the same 87 are regions, together on mosaics.
"""

import dataclasses
from itertools import chain
from pathlib import Path

import torch
from clim_data import MosaicBatch, MosaicConfig
from clim_eval import ImageTextRetrieval, RegionClassification, ZeroShotClassification
from clim_models import RegionModel
from torch import Tensor

from clim_train.config import TrainConfig
from clim_train.experiments.quickstart.data import QuickstartData
from clim_train.methods.clim import ClimTask
from clim_train.methods.text_features import TextFeatures
from clim_train.recipes.clim import clim_quickstart

ARMS = {
    "image": "+ image-level training",
    "tiles": "+ region loss, no mosaics",
    "clim": "+ CLIM (mosaics)",
}
START = "pretrained clim-tiny"
READOUTS = ("boxes", "boxes_value", "boxes_attention")
ALPHAS = (0.3, 0.5, 0.7)


class SingleTileTask(ClimTask):
    """The control without mosaics: each tile is cut out again and encoded alone, pooled over its
    whole extent.

    The pixels, captions and the loss are those of `ClimTask`; what is missing is the shared canvas.
    """

    def image_features(self, batch: MosaicBatch) -> Tensor:
        """(N, C) unit rows in the order of the batch; see `ClimTask.image_features`."""
        rows = []
        for mosaic, boxes in zip(batch.mosaics, batch.boxes, strict=True):
            tiles = cut_tiles(mosaic, boxes)
            whole = [torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=mosaic.device)] * len(tiles)
            rows.append(self.model.encode_boxes(self._pixels(tiles), whole, mode=self.box_mode))
        if len(batch.singles):
            rows.append(self.model.encode_image(self._pixels(batch.singles)))
        return torch.cat(rows)


def cut_tiles(mosaic: Tensor, boxes: Tensor) -> Tensor:
    """The tiles of one mosaic (3, P, P), all of one size, as (n, 3, p, p); boxes: (n, 4) XYXY in
    [0, 1]."""
    edges = (boxes * mosaic.shape[-1]).round().long().tolist()
    return torch.stack([mosaic[:, y0:y1, x0:x1] for x0, y0, x1, y1 in edges])


@dataclasses.dataclass(frozen=True)
class ArmOptions:
    """What the user may change; the defaults were chosen on the validation split (see
    docs/quickstart.md)."""

    steps: int = 250
    lr: float = 3e-3
    batch_size: int = 144
    min_singles: int = 57
    unlocked_blocks: int = 7
    canvas_px: int = 192

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: train for at least one step")


def arm_config(
    arm: str, options: ArmOptions, *, shards: tuple[str, ...], folder: Path, seed: int
) -> TrainConfig:
    """The run of one arm: the recipe `clim_quickstart` with the options of the comparison."""
    recipe = clim_quickstart()
    mosaic = MosaicConfig(
        canvas_px=options.canvas_px,
        single_px=64,
        mix={2: 1, 3: 1, 4: 1},
        min_singles=options.min_singles,
    )
    if arm == "image":
        mosaic = dataclasses.replace(mosaic, mix={})
    on_gpu = torch.cuda.is_available()
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, unlocked_blocks=options.unlocked_blocks),
        data=dataclasses.replace(
            recipe.data,
            shards=shards,
            batch_size=options.batch_size,
            mosaic=mosaic,
            workers=1 if on_gpu else 0,
        ),
        optim=dataclasses.replace(recipe.optim, lr=options.lr),
        schedule=dataclasses.replace(
            recipe.schedule, steps=options.steps, warmup_steps=min(25, max(1, options.steps // 10))
        ),
        engine=dataclasses.replace(recipe.engine, precision="amp_bf16" if on_gpu else "fp32"),
        run=dataclasses.replace(
            recipe.run,
            folder=str(folder),
            seed=seed,
            alpha=1.0,
            save_every=max(options.steps, 1),
            tensorboard=False,
        ),
    )


def train_arm(
    arm: str, model: RegionModel, config: TrainConfig, texts: TextFeatures
) -> dict[str, float]:
    """Train `model` in place as one arm and return the last training metrics.

    texts: text features of `model`, kept between the arms because the text tower is frozen in all
    of them.
    """
    from clim_train.build import build_loader, gradient_path
    from clim_train.trainer import Trainer

    model.freeze(config.model.unlocked_blocks, path=gradient_path(config))
    kind = SingleTileTask if arm == "tiles" else ClimTask
    task = kind(
        model,
        mask_duplicate_captions=config.task.mask_duplicate_captions,
        box_mode=config.task.box_mode,
    )
    task.text_features = texts
    return Trainer(config, task, build_loader(config)).fit()


def evaluate(model: RegionModel, data: QuickstartData, *, crops: bool = True) -> dict[str, float]:
    """Region, image and retrieval accuracy on every set of `data`: {"SET.READOUT.mAcc1": fraction,
    ...}.

    Readouts: boxes (RoIAlign of the dense map, one pass), boxes_value (without residual and MLP),
    boxes_attention (a class token that sees only the box) and, with `crops`, one extra pass for
    every region.
    """
    model.eval()
    metrics: dict[str, float] = {}
    for part in data.sets:
        regions = RegionClassification(
            model, part.embeddings, outputs=READOUTS, crops=crops, batch_size=16
        )
        found = regions.run(part.scenes)
        names = [*READOUTS, *(["crops"] if crops else [])]
        for readout, k in chain.from_iterable(((name, 1), (name, 5)) for name in names):
            metrics[f"{part.name}.{readout}.mAcc{k}"] = found[f"{readout}.all.mAcc{k}"]
        image = ZeroShotClassification(model, part.embeddings, batch_size=256).run(part.labelled())
        metrics |= {f"{part.name}.image.{key}": value for key, value in image.items()}
        retrieval = ImageTextRetrieval(model, batch_size=256).run(part.captioned())
        metrics |= {
            f"{part.name}.retrieval.{key}": value
            for key, value in retrieval.items()
            if "R@10" not in key
        }
    return metrics

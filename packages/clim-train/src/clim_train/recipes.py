"""Recipes: functions that return the complete configuration of a run.

`clim-train list` prints them, `clim-train show NAME` prints one in full, `clim-train NAME --section.option value`
runs one with changes. Shards are never part of a recipe: name yours with `--data.shards`.
"""

import difflib
from collections.abc import Callable

from clim_data import MosaicConfig

from clim_train.config import (
    ClimConfig,
    EngineConfig,
    ModelConfig,
    OptimConfig,
    PairDataConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)

OPENAI_VIT = OptimConfig(lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
EVA02 = OptimConfig(lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def clim_coco_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 on COCO captions.

    Paper: CLIM, arXiv 2312.11376. 100 epochs of train2017, one random caption per image, 128 images per step.

    Command: deepspeed --num_gpus 4 --module clim_train clim_coco_vitb16 --data.shards 'coco-train/*.tar'
    Hardware: 4 GPUs. With 8, use --data.batch-size 16 for the same 128 images per step.
    Data: COCO 2017 train images and captions_train2017.json, packed by `clim-data pack`.
    Expected: the authors' detector on this backbone has 25.7 (paper) and 29.7 (released) AP50 of novel classes on
        OV-COCO (readme of the authors' release). Region accuracy at 224 px, measured by a third party: COCO boxes
        top-1 41.4 before, 53.4 after; Flickr30k text-to-image R@1 73.6 before, 71.2 after. Not repeated by us.
    Differs from the original: gradients are averaged over GPUs, where the original never exchanged them, so a step
        sees 4 x 32 images instead of 32; each image is resized once into its tile (--data.mosaic.tile-source-px 224
        restores 224 px tiles enlarged to the canvas); arithmetic is bf16 where the device has it.
    """
    return TrainConfig(
        model=ModelConfig(name="ViT-B-16-quickgelu", pretrained="openai", unlocked_blocks=6),
        data=PairDataConfig(batch_size=32, mosaic=MosaicConfig(canvas_px=1024, single_px=224)),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=False),
        optim=OPENAI_VIT,
        schedule=ScheduleConfig(kind="cosine", epochs=100, warmup_steps=1000),
        engine=EngineConfig(zero_stage=1, precision="amp_bf16"),
        run=RunConfig(folder="runs/clim_coco_vitb16", alpha=0.7, save_every=1000),
    )


def clim_cc3m_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 on CC3M.

    Paper: CLIM, arXiv 2312.11376. 3 epochs, 128 images per step, otherwise as `clim_coco_vitb16`.

    Command: deepspeed --num_gpus 4 --module clim_train clim_cc3m_vitb16 --data.shards 'cc3m/*.tar'
    Hardware: 4 GPUs.
    Data: CC3M as img2dataset shards (jpg, txt, json), or packed from CC3M-style json by `clim-data pack`.
    Expected: the paper reports this backbone through open-vocabulary detectors; no figure of ours.
    Differs from the original: as `clim_coco_vitb16`.
    """
    coco = clim_coco_vitb16()
    return TrainConfig(
        model=coco.model,
        data=coco.data,
        task=coco.task,
        optim=coco.optim,
        schedule=ScheduleConfig(kind="cosine", epochs=3, warmup_steps=1000),
        engine=coco.engine,
        run=RunConfig(folder="runs/clim_cc3m_vitb16", alpha=0.7, save_every=1000),
    )


def clim_lvis_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 for LVIS: COCO captions of the LVIS training images.

    Paper: CLIM, arXiv 2312.11376. The authors released no script for it; this is our reading of the paper.

    Command: deepspeed --num_gpus 4 --module clim_train clim_lvis_vitb16 --data.shards 'lvis-train-captions/*.tar'
    Hardware: 4 GPUs.
    Data: the images of lvis_v1_train.json with their COCO captions, packed by `clim-data pack`.
    Expected: the authors' detector on such a backbone has 20.8 (paper) and 24.3 (released) mask AP of rare classes
        on OV-LVIS (readme of the authors' release). Not repeated by us.
    Differs from the original: as `clim_coco_vitb16`.
    """
    coco = clim_coco_vitb16()
    return TrainConfig(
        model=coco.model,
        data=coco.data,
        task=coco.task,
        optim=coco.optim,
        schedule=coco.schedule,
        engine=coco.engine,
        run=RunConfig(folder="runs/clim_lvis_vitb16", alpha=0.7, save_every=1000),
    )


def clim_coco_evab16() -> TrainConfig:
    """CLIM of EVA02-CLIP-B/16 on COCO captions: not in the paper.

    Paper: the method of CLIM (arXiv 2312.11376) with backbone, unlocked blocks, canvas and alpha of CLIPSelf
    (arXiv 2310.01403), so that both methods can be compared on one backbone.

    Command: deepspeed --num_gpus 8 --module clim_train clim_coco_evab16 --model.pretrained
        EVA02_CLIP_B_psz16_s8B.pt --data.batch-size 16 --data.shards 'coco-train/*.tar'
    Hardware: 8 GPUs; all 12 blocks train at 1024 px, with gradient checkpointing.
    Data: as `clim_coco_vitb16`. Weights: EVA02_CLIP_B_psz16_s8B.pt, or the open_clip tag set here.
    Expected: unknown. Nobody has published this combination and we have not run it.
    Differs from the original: there is none; from CLIPSelf's runs, the loss and the data.
    """
    return TrainConfig(
        model=ModelConfig(
            name="EVA02-B-16", pretrained="merged2b_s8b_b131k", unlocked_blocks=12, grad_checkpointing=True
        ),
        data=PairDataConfig(batch_size=32, mosaic=MosaicConfig(canvas_px=1024, single_px=224)),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=False),
        optim=EVA02,
        schedule=ScheduleConfig(kind="cosine", epochs=100, warmup_steps=1000),
        engine=EngineConfig(zero_stage=1, precision="amp_bf16"),
        run=RunConfig(folder="runs/clim_coco_evab16", alpha=0.7, save_every=1000),
    )


def clim_quickstart() -> TrainConfig:
    """CLIM of clim-tiny on the embedded emoji drawings: minutes on two CPU cores.

    Paper: the method of CLIM (arXiv 2312.11376) in small. 87 of 144 images are tiles of mosaics.

    Command: clim-train clim_quickstart --data.shards 'emoji/*.tar' (`hatch run quickstart` makes the shards, trains
        this and its control runs, and reports them side by side)
    Hardware: two CPU cores, about 0.5 s per step.
    Data: shards of `clim_data.emoji.write_emoji_shards`: three vendors, some concepts held out.
    Expected: see the report of the quick start; drawings say nothing about photographs.
    Differs from the original: tiles of 64 px and equal captions are not negatives of each other, since a small set
        of concepts repeats them; the learning rate is that of a small model. All blocks and the position embedding
        train, the convolutional stem does not. Chosen on validation concepts (docs/quickstart.md).
    """
    return TrainConfig(
        model=ModelConfig(name="clim-tiny", pretrained="emoji", unlocked_blocks=7),
        data=PairDataConfig(
            batch_size=144,
            mosaic=MosaicConfig(canvas_px=192, single_px=64, mix={2: 1, 3: 1, 4: 1}, min_singles=57),
            background="random",
            workers=1,
        ),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=True),
        optim=OptimConfig(lr=3e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(kind="cosine", steps=250, warmup_steps=25),
        engine=EngineConfig(zero_stage=1, precision="fp32"),
        run=RunConfig(folder="runs/clim_quickstart", alpha=0.7, log_every=5, save_every=100),
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (clim_coco_vitb16, clim_cc3m_vitb16, clim_lvis_vitb16, clim_coco_evab16, clim_quickstart)
}


def find_recipe(name: str) -> Callable[[], TrainConfig]:
    """The recipe called `name`. Raises ValueError with all names, and the closest first."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no recipe {name!r}: {hint}The recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_table() -> str:
    """Name, backbone, data per step, length and first sentence of every recipe, as a Markdown table."""
    rows = [("recipe", "backbone", "batch x canvas", "length", "what")]
    for name, recipe in RECIPES.items():
        config = recipe()
        length = f"{config.schedule.steps} steps" if config.schedule.steps else f"{config.schedule.epochs} epochs"
        batch = f"{config.data.batch_size} x {config.data.mosaic.canvas_px} px"
        rows.append((name, config.model.name, batch, length, (recipe.__doc__ or "").split("\n")[0]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)

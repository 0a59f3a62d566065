"""CLIM (arXiv 2312.11376): mosaics of captioned images."""

from clim_data import MosaicConfig

from clim_train.config import TrainConfig
from clim_train.methods.clim import ClimConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.options.sections import (
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from clim_train.recipes.backbones import CC3M_IMAGES, COCO_IMAGES, EVA02, LVIS_IMAGES, OPENAI_VIT
from clim_train.recipes.registry import recipe


@recipe(gpus=4, images=COCO_IMAGES, data="COCO captions")
def clim_coco_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 on COCO captions.

    Paper: CLIM, arXiv 2312.11376. 100 epochs of train2017, one random caption per image, 128 images
        per step.

    Command: deepspeed --num_gpus 4 --module clim_train clim_coco_vitb16 --data.shards
        'coco-train/*.tar'
    Hardware: 4 GPUs. With 8, use --data.batch-size 16 for the same 128 images per step.
    Data: COCO 2017 train images and captions_train2017.json, packed by `clim-data pack`.
    Expected: the authors' detector on this backbone has 25.7 (paper) and 29.7 (released) AP50 of
        novel classes on OV-COCO (readme of the authors' release). Region accuracy at 224 px,
        measured by a third party: COCO boxes top-1 41.4 before, 53.4 after; Flickr30k text-to-image
        R@1 73.6 before, 71.2 after. Not repeated by us.
    Differs from the original: gradients are averaged over GPUs. The original gathered features for
        its loss but never exchanged gradients, so that each GPU trained a copy of its own on a
        quarter of the images, and one of the copies was kept. No option restores drifting copies;
        what the kept one learned from is nearest to one process with --data.batch-size 32
        --schedule.steps 92500 (100 epochs of a quarter of the images), which has 31 instead of 127
        negatives per pair. Each image is resized once into its tile (--data.mosaic.tile-source-px
        224 restores 224 px tiles enlarged to the canvas). Any number of images makes a batch.
        Arithmetic is bf16 (--engine.precision fp32 restores fp32).
    """
    return TrainConfig(
        model=ModelConfig(name="ViT-B-16-quickgelu", pretrained="openai", unlocked_blocks=6),
        data=PairDataConfig(batch_size=32, mosaic=MosaicConfig(canvas_px=1024, single_px=224)),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=False),
        optim=OPENAI_VIT,
        schedule=ScheduleConfig(kind="cosine", epochs=100, warmup_steps=1000),
        engine=EngineConfig(precision="amp_bf16"),
        run=RunConfig(folder="runs/clim_coco_vitb16", alpha=0.7, save_every=1000),
    )


@recipe(gpus=4, images=CC3M_IMAGES, data="CC3M")
def clim_cc3m_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 on CC3M.

    Paper: CLIM, arXiv 2312.11376. 3 epochs, 128 images per step, otherwise as `clim_coco_vitb16`.

    Command: deepspeed --num_gpus 4 --module clim_train clim_cc3m_vitb16 --data.shards 'cc3m/*.tar'
    Hardware: 4 GPUs.
    Data: CC3M as img2dataset shards (jpg, txt, json), or packed from CC3M-style json by `clim-data
        pack`.
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


@recipe(gpus=4, images=LVIS_IMAGES, data="COCO captions, LVIS images")
def clim_lvis_vitb16() -> TrainConfig:
    """CLIM of OpenAI's ViT-B/16 for LVIS: COCO captions of the LVIS training images.

    Paper: CLIM, arXiv 2312.11376. The authors released no script for it; this is our reading of the
        paper.

    Command: deepspeed --num_gpus 4 --module clim_train clim_lvis_vitb16 --data.shards
        'lvis-train-captions/*.tar'
    Hardware: 4 GPUs.
    Data: the images of lvis_v1_train.json with their COCO captions, packed by `clim-data pack`.
    Expected: the authors' detector on such a backbone has 20.8 (paper) and 24.3 (released) mask AP
        of rare classes on OV-LVIS (readme of the authors' release). Not repeated by us.
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


@recipe(gpus=4, images=COCO_IMAGES, data="COCO captions")
def clim_coco_evab16() -> TrainConfig:
    """CLIM of EVA02-CLIP-B/16 on COCO captions: not in the paper.

    Paper: the method of CLIM (arXiv 2312.11376) with backbone, unlocked blocks, canvas and alpha of
        CLIPSelf (arXiv 2310.01403), so that both methods can be compared on one backbone.

    Command: deepspeed --num_gpus 4 --module clim_train clim_coco_evab16 --model.pretrained
        EVA02_CLIP_B_psz16_s8B.pt --data.shards 'coco-train/*.tar'
    Hardware: 4 GPUs, or 8 with --data.batch-size 16; all 12 blocks train at 1024 px, with gradient
        checkpointing.
    Data: as `clim_coco_vitb16`. Weights: EVA02_CLIP_B_psz16_s8B.pt, or the open_clip tag set here.
    Expected: unknown. Nobody has published this combination and we have not run it.
    Differs from the original: there is none; from CLIPSelf's runs, the loss and the data.
    """
    return TrainConfig(
        model=ModelConfig(
            name="EVA02-B-16",
            pretrained="merged2b_s8b_b131k",
            unlocked_blocks=12,
            grad_checkpointing=True,
        ),
        data=PairDataConfig(batch_size=32, mosaic=MosaicConfig(canvas_px=1024, single_px=224)),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=False),
        optim=EVA02,
        schedule=ScheduleConfig(kind="cosine", epochs=100, warmup_steps=1000),
        engine=EngineConfig(precision="amp_bf16"),
        run=RunConfig(folder="runs/clim_coco_evab16", alpha=0.7, save_every=1000),
    )


@recipe(gpus=1, images=None, data="embedded drawings")
def clim_quickstart() -> TrainConfig:
    """CLIM of clim-tiny on the embedded emoji drawings: minutes on two CPU cores.

    Paper: the method of CLIM (arXiv 2312.11376) in small. 87 of 144 images are tiles of mosaics.

    Command: clim-train clim_quickstart --data.shards 'emoji/*.tar' (`hatch run quickstart` makes
        the shards, trains this and its control runs, and reports them side by side)
    Hardware: two CPU cores, about 0.5 s per step.
    Data: shards of `clim_data.drawings.emoji.write_emoji_shards`: three vendors, some concepts held
        out.
    Expected: see the report of the quick start; drawings say nothing about photographs.
    Differs from the original: tiles of 64 px and equal captions are not negatives of each other,
        since a small set of concepts repeats them; the learning rate is that of a small model. All
        blocks and the position embedding train, the convolutional stem does not. Chosen on
        validation concepts (docs/quickstart.md).
    """
    return TrainConfig(
        model=ModelConfig(name="clim-tiny", pretrained="emoji", unlocked_blocks=7),
        data=PairDataConfig(
            batch_size=144,
            mosaic=MosaicConfig(
                canvas_px=192, single_px=64, mix={2: 1, 3: 1, 4: 1}, min_singles=57
            ),
            background="random",
            workers=1,
        ),
        task=ClimConfig(box_mode="align", mask_duplicate_captions=True),
        optim=OptimConfig(lr=3e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(kind="cosine", steps=250, warmup_steps=25),
        engine=EngineConfig(precision="fp32"),
        evaluation=EvaluationConfig(templates="name"),
        run=RunConfig(folder="runs/clim_quickstart", alpha=0.7, log_every=5, save_every=100),
    )

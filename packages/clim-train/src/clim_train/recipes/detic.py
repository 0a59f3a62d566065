"""Detic + CLIM (arXiv 2312.11376): detectors that learn classes from captions, on OV-COCO and
OV-LVIS."""

from clim_train.config import TrainConfig
from clim_train.methods.captioned_views import CaptionedDataConfig
from clim_train.methods.detic import DeticConfig
from clim_train.options.sections import (
    EngineConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from clim_train.recipes.backbones import COCO_IMAGES, LVIS_IMAGES
from clim_train.recipes.registry import recipe

# Its text tower embeds classes and captions; its image tower has no part in this.
_TEXT = ModelConfig(name="ViT-B-32-quickgelu", pretrained="openai", unlocked_blocks=0)
_SGD = OptimConfig(
    kind="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, decay="all", clip_norm=35.0
)
_ADAMW = OptimConfig(
    lr=2e-4,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-4,
    decay="all_but_norms",
    clip_norm=1.0,
)


def _coco(name: str, steps: int, *, mosaics: int = 0, tags: bool = True) -> TrainConfig:
    return TrainConfig(
        model=_TEXT,
        data=CaptionedDataConfig(batch_size=2, pictures=mosaics, mosaics=mosaics, tags=tags),
        task=DeticConfig(detector="ov-coco"),
        optim=_SGD,
        # The rate falls after two thirds and eight ninths of the run.
        schedule=ScheduleConfig(
            kind="step",
            steps=steps,
            warmup_steps=1000,
            warmup_start=0.001,
            decay_at=(2 / 3, 8 / 9),
        ),
        engine=EngineConfig(precision="amp_bf16"),
        run=RunConfig(folder=f"runs/{name}", save_every=5000),
    )


def _lvis(
    name: str, steps: int, warmup: tuple[int, float], *, pictures: int = 0, mosaics: int = 0
) -> TrainConfig:
    return TrainConfig(
        model=_TEXT,
        data=CaptionedDataConfig(
            batch_size=8,
            image_px=640,
            crops=True,
            masks=True,
            frequencies=("f", "c"),
            repeat_below=0.001,
            pictures=pictures,
            mosaics=mosaics,
        ),
        task=DeticConfig(detector="ov-lvis", resnet="torchvision"),
        optim=_ADAMW,
        schedule=ScheduleConfig(
            kind="whole_cosine", steps=steps, warmup_steps=warmup[0], warmup_start=warmup[1]
        ),
        engine=EngineConfig(precision="amp_bf16"),
        run=RunConfig(folder=f"runs/{name}", save_every=5000),
    )


@recipe(gpus=8, images=COCO_IMAGES, data="OV-COCO, boxes of base classes")
def detic_coco_base() -> TrainConfig:
    """Detector of Detic on boxes of the 48 base classes of OV-COCO, the start of the next two.

    Paper: CLIM, arXiv 2312.11376, after Detic, arXiv 2201.02605. ResNet-50 to stride 16, 90,000
        steps of 16 images, SGD 0.02, a tenth of it from step 60,000 and a hundredth from 80,000.

    Command: deepspeed --num_gpus 8 --module clim_train detic_coco_base --data.images
        DATA/train2017 --data.boxes DATA/annotations/instances_train2017.json
        --data.classes base.txt --task.backbone resnet50_msra.pth
    Hardware: 8 GPUs in the paper.
    Data: train2017, instances_train2017.json, and a text file with the 48 base names. The ResNet-50
        is Caffe's (MSRA), as mmdetection gives it; one of torchvision or timm takes
        --task.resnet torchvision, which sets strides and pixels to match.
    Expected: AP50 of all classes 39.3 and of novel ones 1.3 with Detic's own code, by its model
        zoo; not published for CLIM's. Not repeated by us.
    Differs from the original: bfloat16 in place of float16 with a loss scale, boxes of the image as
        it is stored (no EXIF rotation), images in an order that depends on the seed alone.
        --task.original leaves the bias of classes out of test scores, as there.
    """
    return _coco("detic_coco_base", 90_000)


@recipe(gpus=8, images=COCO_IMAGES, data="OV-COCO, boxes of base classes and captions")
def detic_coco_captions() -> TrainConfig:
    """Detic + CLIM on OV-COCO with captions and no tags.

    Paper: as `detic_coco_base`, then 45,000 steps at half the milestones. A step of a GPU has 2
        images with boxes, 2 with captions, and 2 mosaics of such.

    Command: deepspeed --num_gpus 8 --module clim_train detic_coco_captions --data.images
        DATA/train2017 --data.boxes DATA/annotations/instances_train2017.json
        --data.classes base.txt --data.captions DATA/annotations/captions_train2017.json
        --task.start runs/detic_coco_base
    Hardware: 8 GPUs in the paper.
    Data: as `detic_coco_base`, and captions_train2017.json, or the file of `clim-data tags`.
    Expected: AP50 of novel classes 32.3, by the authors' readme. Not repeated by us.
    Differs from the original: as `detic_coco_base`. The mosaics of a step are made of other images
        than its captioned ones (--data.original restores the released code's), of a pool drawn for
        each step instead of the images that a worker read last, and every one is a mosaic.
        Captions of former steps (256 on each GPU) are saved with the checkpoint, those of the
        first GPU. The released code stops with an error in this configuration; its parent works.
    """
    return _coco("detic_coco_captions", 45_000, mosaics=1, tags=False)


@recipe(gpus=8, images=COCO_IMAGES, data="OV-COCO, boxes of base classes, captions and tags")
def detic_coco_tags() -> TrainConfig:
    """Detic + CLIM on OV-COCO with captions and the tags in them.

    Paper: as `detic_coco_captions`, with the loss of tags.

    Command: deepspeed --num_gpus 8 --module clim_train detic_coco_tags --data.images
        DATA/train2017 --data.boxes DATA/annotations/instances_train2017.json
        --data.classes base.txt --data.captions coco_tags.json --task.start runs/detic_coco_base
    Hardware: 8 GPUs in the paper.
    Data: as `detic_coco_base`, and coco_tags.json of `clim-data tags --captions-json
        captions_train2017.json --classes instances_train2017.json` (--rule original for the
        published tags).
    Expected: AP50 of novel classes 35.4, by the authors' readme. Not repeated by us.
    Differs from the original: as `detic_coco_captions`.
    """
    return _coco("detic_coco_tags", 45_000, mosaics=1)


@recipe(gpus=8, images=LVIS_IMAGES, data="OV-LVIS, masks of base classes")
def detic_lvis_base() -> TrainConfig:
    """Detector of Detic with masks on the 866 frequent and common classes of LVIS.

    Paper: Detic, arXiv 2201.02605, on CenterNet2. ResNet-50 with a pyramid, a cascade of three box
        heads, 90,000 steps of 64 crops of 640 px, AdamW 2e-4.

    Command: deepspeed --num_gpus 8 --module clim_train detic_lvis_base --data.images
        DATA/train2017 --data.boxes DATA/annotations/lvis_v1_train.json
        --task.backbone resnet50_miil_21k.pth
    Hardware: 8 GPUs in the paper.
    Data: train2017 and lvis_v1_train.json, of which frequent and common classes train
        (--data.frequencies f c), with repeat factors. The ResNet-50 is that of ImageNet-21K (MIIL),
        or another of torchvision or timm.
    Expected: mask AP 30.2, of rare classes 16.4, by Detic's model zoo. Not repeated by us.
    Differs from the original: bfloat16 in place of float32, masks only of images with a usable box,
        class names embedded with ViLD's prompts in place of "a NAME" (--task.embeddings takes
        others). Rare classes are no negatives, and images whose boxes are all cut away train as
        background; --data.original and --task.original restore both.
    """
    return _lvis("detic_lvis_base", 90_000, (10_000, 0.0001))


@recipe(gpus=8, images=LVIS_IMAGES, data="OV-LVIS, masks of base classes, CC3M captions and tags")
def detic_lvis_captions() -> TrainConfig:
    """Detic on OV-LVIS with captions and tags of CC3M, without mosaics.

    Paper: as `detic_lvis_base`, then 45,000 steps. A step of a GPU has 8 images with boxes and 32
        with captions.

    Command: deepspeed --num_gpus 8 --module clim_train detic_lvis_captions --data.images
        DATA/train2017 --data.boxes DATA/annotations/lvis_v1_train.json
        --data.caption-shards 'cc3m/*.tar' --data.captions cc3m_tags.json
        --task.start runs/detic_lvis_base
    Hardware: 8 GPUs in the paper.
    Data: as `detic_lvis_base`, CC3M, and cc3m_tags.json of `clim-data tags --images 'cc3m/*.tar'
        --classes lvis_v1_train.json --first-caption` (--rule original for the published tags).
    Expected: not published for CLIM's code. Detic's own, with captions and tags for 90,000 steps:
        mask AP 31.0, of rare classes 21.3. Not repeated by us.
    Differs from the original: as `detic_lvis_base`, and boxes of groups do not stand for a tile in
        the later stages (--task.original restores it). Captions are drawn once per step, not once
        per stage of the cascade.
    """
    return _lvis("detic_lvis_captions", 45_000, (1000, 0.001), pictures=4)


@recipe(gpus=8, images=LVIS_IMAGES, data="OV-LVIS, masks of base classes, CC3M captions and tags")
def detic_lvis_clim() -> TrainConfig:
    """Detic + CLIM on OV-LVIS: captions and tags of CC3M, and mosaics.

    Paper: as `detic_lvis_captions`; a step of a GPU has 8 images with boxes, 16 with captions, and
        16 mosaics.

    Command: deepspeed --num_gpus 8 --module clim_train detic_lvis_clim --data.images
        DATA/train2017 --data.boxes DATA/annotations/lvis_v1_train.json
        --data.caption-shards 'cc3m/*.tar' --data.captions cc3m_tags.json
        --task.start runs/detic_lvis_base
    Hardware: 8 GPUs in the paper.
    Data: as `detic_lvis_captions`.
    Expected: mask AP of rare classes 21.8, by the authors' readme. Not repeated by us.
    Differs from the original: as `detic_lvis_captions` and, for mosaics, `detic_coco_captions`.
    """
    return _lvis("detic_lvis_clim", 45_000, (1000, 0.001), pictures=2, mosaics=2)

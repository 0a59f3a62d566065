"""CLIPSelf (arXiv 2310.01403): the frozen start model's features of crops teach the dense
features."""

from clim_train.config import TrainConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.options.sections import EngineConfig, ModelConfig, RunConfig, ScheduleConfig
from clim_train.recipes.backbones import COCO_IMAGES, EVA02, EVA_B16, EVA_L14, LVIS_IMAGES
from clim_train.recipes.registry import recipe


def _clipself(
    folder: str, model: ModelConfig, *, image_px: int, alpha: float, boxes: str | None = None
) -> TrainConfig:
    return TrainConfig(
        model=model,
        data=CropDataConfig(
            batch_size=2, image_px=image_px, max_split=6, max_cells=20, context=1.5, boxes=boxes
        ),
        task=ClipSelfConfig(box_mode="align"),
        optim=EVA02,
        schedule=ScheduleConfig(kind="cosine", epochs=6, warmup_steps=1000),
        engine=EngineConfig(precision="amp_bf16"),
        run=RunConfig(folder=f"runs/{folder}", alpha=alpha, save_every=1000),
    )


@recipe(gpus=8, images=COCO_IMAGES, data="COCO images")
def clipself_coco_patches_evab16() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-B/16 on image patches of COCO.

    Paper: CLIPSelf, arXiv 2310.01403. 6 epochs, 16 images per step, a random grid of up to 6 x 6
        patches per image.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_coco_patches_evab16 --data.images
        DATA/train2017 --data.images-json DATA/annotations/instances_train2017.json
    Hardware: 8 GPUs (`clim-train estimate clipself_coco_patches_evab16 --gpus 8`).
    Data: the images of instances_train2017.json; no annotation is read. Weights: the open_clip tag
        set here, or --model.pretrained EVA02_CLIP_B_psz16_s8B.pt.
    Expected: 33.6 AP50 of novel classes on OV-COCO with the authors' F-ViT detector (its readme).
        Region accuracy at 224 px by a third party: COCO boxes top-1 41.4 before, 60.9 after; but
        Flickr30k text-to-image R@1 73.6 before, 52.3 after. Not repeated by us.
    Differs from the original: gradients are averaged over GPUs. The original never exchanged them,
        so that the kept weights are those of one process with 2 images per step: one process with
        --data.batch-size 2 --schedule.steps 44358 is that run. Rotary positions are right on any
        grid; weights that cannot get a gradient (query and key of the last block) do not train;
        arithmetic is bf16 (--engine.precision fp32 restores fp32); unreadable images are skipped
        and named instead of replaced.
    """
    return _clipself("clipself_coco_patches_evab16", EVA_B16, image_px=1024, alpha=0.7)


@recipe(gpus=8, images=COCO_IMAGES, data="COCO images")
def clipself_coco_patches_eval14() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-L/14 (336 px) on image patches of COCO.

    Paper: CLIPSelf, arXiv 2310.01403. As `clipself_coco_patches_evab16` at 896 px, all 24 blocks,
        alpha 0.95.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_coco_patches_eval14 --data.images
        DATA/train2017 --data.images-json DATA/annotations/instances_train2017.json
    Hardware: 8 GPUs (`clim-train estimate clipself_coco_patches_eval14 --gpus 8`).
    Data: as `clipself_coco_patches_evab16`. Weights: the tag set here, or
        EVA02_CLIP_L_336_psz14_s6B.pt.
    Expected: 38.4 AP50 of novel classes on OV-COCO with the authors' F-ViT detector (its readme).
        Not repeated by us.
    Differs from the original: as `clipself_coco_patches_evab16`.
    """
    return _clipself("clipself_coco_patches_eval14", EVA_L14, image_px=896, alpha=0.95)


@recipe(gpus=8, images=COCO_IMAGES, data="COCO images, proposals")
def clipself_coco_proposals_evab16() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-B/16 on region proposals of COCO.

    Paper: CLIPSelf, arXiv 2310.01403. As `clipself_coco_patches_evab16`, with up to 20
        class-agnostic proposals per image in place of grid patches; the teacher sees each box
        enlarged 1.5 times.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_coco_proposals_evab16 --data.images
        DATA/train2017 --data.boxes proposals.json
    Hardware: 8 GPUs (`clim-train estimate clipself_coco_proposals_evab16 --gpus 8`).
    Data: train2017 and a COCO json of boxes made by `clim-data proposals` (the authors' file was
        never explained).
    Expected: 37.6 AP50 of novel classes on OV-COCO with the authors' F-ViT detector (its readme)
        and their proposals, which came from a detector trained on base classes. Not repeated by us.
    Differs from the original: as `clipself_coco_patches_evab16`, and in the proposals.
    """
    return _clipself(
        "clipself_coco_proposals_evab16", EVA_B16, image_px=1024, alpha=0.7, boxes="proposals.json"
    )


@recipe(gpus=8, images=COCO_IMAGES, data="COCO images, proposals")
def clipself_coco_proposals_eval14() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-L/14 (336 px) on region proposals of COCO.

    Paper: CLIPSelf, arXiv 2310.01403. As `clipself_coco_proposals_evab16` at 896 px, all 24 blocks,
        alpha 0.95.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_coco_proposals_eval14 --data.images
        DATA/train2017 --data.boxes proposals.json
    Hardware: 8 GPUs (`clim-train estimate clipself_coco_proposals_eval14 --gpus 8`).
    Data: as `clipself_coco_proposals_evab16`. Weights: the tag set here, or
        EVA02_CLIP_L_336_psz14_s6B.pt.
    Expected: 44.3 AP50 of novel classes on OV-COCO with the authors' F-ViT detector (its readme).
        Not repeated by us.
    Differs from the original: as `clipself_coco_proposals_evab16`.
    """
    return _clipself(
        "clipself_coco_proposals_eval14", EVA_L14, image_px=896, alpha=0.95, boxes="proposals.json"
    )


@recipe(gpus=8, images=LVIS_IMAGES, data="LVIS images")
def clipself_lvis_patches_evab16() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-B/16 on image patches of LVIS.

    Paper: CLIPSelf, arXiv 2310.01403. As `clipself_coco_patches_evab16` on the images of
        lvis_v1_train.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_lvis_patches_evab16 --data.images
        DATA --data.images-json DATA/annotations/lvis_v1_train.json
    Hardware: 8 GPUs (`clim-train estimate clipself_lvis_patches_evab16 --gpus 8`).
    Data: COCO's train2017 and val2017 side by side in DATA, which lvis_v1_train.json takes its
        images from.
    Expected: 25.3 mask AP of rare classes on OV-LVIS with the authors' F-ViT detector (its readme).
        Not repeated by us.
    Differs from the original: as `clipself_coco_patches_evab16`; its run on one process has
        --schedule.steps 37566.
    """
    return _clipself("clipself_lvis_patches_evab16", EVA_B16, image_px=1024, alpha=0.7)


@recipe(gpus=8, images=LVIS_IMAGES, data="LVIS images")
def clipself_lvis_patches_eval14() -> TrainConfig:
    """CLIPSelf of EVA02-CLIP-L/14 (336 px) on image patches of LVIS.

    Paper: CLIPSelf, arXiv 2310.01403. As `clipself_lvis_patches_evab16` at 896 px, all 24 blocks,
        alpha 0.95.

    Command: deepspeed --num_gpus 8 --module clim_train clipself_lvis_patches_eval14 --data.images
        DATA --data.images-json DATA/annotations/lvis_v1_train.json
    Hardware: 8 GPUs (`clim-train estimate clipself_lvis_patches_eval14 --gpus 8`).
    Data: as `clipself_lvis_patches_evab16`. Weights: the tag set here, or
        EVA02_CLIP_L_336_psz14_s6B.pt.
    Expected: 34.9 mask AP of rare classes on OV-LVIS with the authors' F-ViT detector (its readme).
        Not repeated by us.
    Differs from the original: as `clipself_lvis_patches_evab16`.
    """
    return _clipself("clipself_lvis_patches_eval14", EVA_L14, image_px=896, alpha=0.95)

"""From a configuration to the parts that a `Trainer` is given: model, task, loader and
evaluators."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import clim_models
import torch
import torch.distributed as dist
from clim_data import (
    BoxLoader,
    CropLoader,
    ImageCaptions,
    MosaicLoader,
    PanopticRegions,
    plan_mosaics,
)
from clim_data.processes.ranks import ranks
from clim_eval import ImageTextRetrieval, RegionClassification
from clim_eval.embeddings import cache_folder, embed_with_bar, load_class_embeddings
from clim_models import RegionModel
from clim_models.image_side import copy_image_side
from clim_models.names import model_config
from clim_models.text.class_embeddings import embed_classes
from torch import Tensor

from clim_train.config import TrainConfig
from clim_train.engine.engine import WEIGHT_DTYPES, choose_device
from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clim import ClimTask
from clim_train.methods.clipself import ClipSelfConfig, ClipSelfTask
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.regionclip import RegionClipConfig, RegionClipTask
from clim_train.methods.table import DataConfig
from clim_train.run.randomness import seed_everything
from clim_train.task import Loader, Task
from clim_train.trainer import Evaluators

LEARNED_FROM = {
    "pairs": "images with captions (see `clim-data pack`)",
    "crops": "images, whose captions it does not read",
    "boxes": "images and the labelled boxes of a COCO json (--data.boxes FILE)",
}
"""What training data are, by `data.kind`, for messages."""


def build_model(config: TrainConfig) -> RegionModel:
    """The backbone with its last `model.unlocked_blocks` blocks (and logit_scale) trainable.

    Weights that no checkpoint gives are drawn from `run.seed`, the same on every rank.
    """
    seed_everything(config.run.seed)
    model = clim_models.create_model(
        config.model.name, pretrained=config.model.pretrained, image_size=config.model.image_size
    )
    model.freeze(config.model.unlocked_blocks, path=gradient_path(config))
    model.set_grad_checkpointing(config.model.grad_checkpointing)
    return model


def gradient_path(config: TrainConfig) -> str:
    """Which path of the image tower the batches use, so that nothing trains that never gets a
    gradient."""
    regions = "dense" if config.task.box_mode == "align" else "attention"
    if config.task.name != "clim":
        return regions
    plan = plan_mosaics(config.data.batch_size, config.data.mosaic)
    if not plan.sides:
        return "image"
    return "all" if plan.num_singles else regions


def build_task(config: TrainConfig, model: RegionModel, class_names: Sequence[str] = ()) -> Task:
    """The training method of `config.task`. Call it before `model` is trained: a teacher is made of
    it as it is.

    `class_names`: of the loader, for `regionclip`.
    """
    task = config.task
    if isinstance(task, ClipSelfConfig):
        precision = task.teacher_precision or config.engine.precision
        teacher = copy_image_side(model).to(dtype=WEIGHT_DTYPES[precision])
        return ClipSelfTask(
            model,
            teacher,
            box_mode=task.box_mode,
            teacher_batch=task.teacher_batch,
            teacher_autocast=torch.bfloat16 if precision == "amp_bf16" else None,
        )
    if isinstance(task, RegionClipConfig):
        return RegionClipTask(
            model,
            build_class_embeddings(config, model, class_names),
            box_mode=task.box_mode,
            sampled_classes=task.sampled_classes,
            sampling=task.sampling,
        )
    return ClimTask(
        model,
        mask_duplicate_captions=task.mask_duplicate_captions,
        box_mode=task.box_mode,
        text_cache=task.text_cache,
        # Without mosaics there is one kind of batch, and no rank can differ.
        lockstep=config.engine.zero_stage == 3 and config.data.mosaic.group_size > 0,
    )


def build_class_embeddings(
    config: TrainConfig, model: RegionModel, class_names: Sequence[str]
) -> Tensor:
    """(K, C) embeddings of the classes: from `task.embeddings`, or of their names by the model's
    text tower.

    Those of names are cached. Raises ValueError when the file lacks classes, or is of another
    model.
    """
    task = config.task
    if task.embeddings is None:
        # On the device that training will use: thousands of names take hours on a CPU.
        return embed_with_bar(
            model.to(choose_device(config)),
            class_names,
            task.templates,
            cache=cache_folder(),
            show=_rank() == 0,
        )
    return load_class_embeddings(task.embeddings, class_names, model=model)


def build_loader(config: TrainConfig) -> Loader:
    """This rank's share of the data.

    Raises ValueError when none are named, FileNotFoundError when they are not there.
    """
    data = config.data
    sources = _sources(data)
    stream = {
        "batch_size": data.batch_size,
        "seed": config.run.seed,
        "rank": _rank(),
        "world_size": ranks(),
        "workers": data.workers,
        "on_error": data.on_error,
        "background": data.background,
    }
    if isinstance(data, CropDataConfig):
        return CropLoader(
            sources,
            image_px=data.image_px,
            crop_px=data.crop_px or native_px(config),
            boxes=data.boxes,
            images_json=data.images_json,
            max_split=data.max_split,
            max_cells=data.max_cells,
            context=data.context,
            area_px=(data.min_box_px, data.max_box_px),
            scales=data.scales,
            **stream,
        )
    if isinstance(data, BoxDataConfig):
        if data.boxes is None:
            raise ValueError(
                "no boxes: name a COCO json of labelled boxes with --data.boxes FILE (see "
                "`clim-eval pseudo-label`)"
            )
        return BoxLoader(
            sources, image_px=data.image_px, boxes=data.boxes, max_boxes=data.max_boxes, **stream
        )
    return MosaicLoader(sources, mosaic=data.mosaic, **stream)


def _sources(data: DataConfig) -> list[str]:
    """Shards, or the folder of images. Raises ValueError and FileNotFoundError that say what these
    data are."""
    fix = (
        f"this recipe learns from {LEARNED_FROM[data.kind]}; name a folder of image files with "
        "--data.images FOLDER, "
        "or shards with --data.shards 'FOLDER/*.tar'"
    )
    if data.images is not None:
        if not Path(data.images).is_dir():
            raise FileNotFoundError(f"--data.images {data.images} is not a folder: {fix}")
        return [data.images]
    if not data.shards:
        raise ValueError(f"no training data: {fix}")
    return list(data.shards)


def native_px(config: TrainConfig) -> int:
    """Side of the images the model was made for, known without building it."""
    size = config.model.image_size or model_config(config.model.name)["vision_cfg"]["image_size"]
    return size if isinstance(size, int) else size[0]


def build_evaluators(config: TrainConfig, model: RegionModel) -> Evaluators:
    """Region accuracy and image-text retrieval on the files `config.evaluation` names; empty
    without.

    Raises FileNotFoundError for files that are not there.
    """
    where, found = config.evaluation, {}
    if where.panoptic_json is not None:
        crop_px = model.image_size[0] if where.crops else None
        regions = PanopticRegions(
            where.images,
            where.panoptic_json,
            where.panoptic_dir,
            image_px=where.image_px,
            stride=model.stride,
            crop_px=crop_px,
        )
        # The text tower is frozen, so the embeddings of the classes hold for the whole run.
        embeddings = embed_classes(model, regions.class_names)
        found["regions"] = partial(
            RegionClassification(
                model, embeddings, crops=where.crops, workers=config.data.workers
            ).run,
            regions,
        )
    if where.captions_json is not None:
        captions = ImageCaptions(where.images, where.captions_json, model.image_size[0])
        found["retrieval"] = partial(
            ImageTextRetrieval(model, workers=config.data.workers).run, captions
        )
    return found


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0

"""From a configuration to the parts that a `Trainer` is given: model, task, loader and evaluators."""

from functools import partial

import clim_models
import torch.distributed as dist
from clim_data import ImageCaptions, MosaicLoader, PanopticRegions, plan_mosaics
from clim_eval import ImageTextRetrieval, RegionClassification
from clim_models import RegionModel
from clim_models.prompts import embed_classes

from clim_train.config import TrainConfig
from clim_train.randomness import seed_everything
from clim_train.tasks.clim import ClimTask
from clim_train.trainer import Evaluators


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
    """Which path of the image tower the batches use, so that nothing trains that never gets a gradient."""
    regions = "dense" if config.task.box_mode == "align" else "attention"
    if config.task.name != "clim":
        return regions
    plan = plan_mosaics(config.data.batch_size, config.data.mosaic)
    if not plan.sides:
        return "image"
    return "all" if plan.num_singles else regions


def build_task(config: TrainConfig, model: RegionModel) -> ClimTask:
    """The training method of `config.task`."""
    return ClimTask(
        model,
        mask_duplicate_captions=config.task.mask_duplicate_captions,
        box_mode=config.task.box_mode,
        text_cache=config.task.text_cache,
        # Without mosaics there is one kind of batch, and no rank can differ.
        lockstep=config.engine.zero_stage == 3 and config.data.mosaic.group_size > 0,
    )


def build_loader(config: TrainConfig) -> MosaicLoader:
    """This rank's share of the shards. Raises ValueError when no shards are named."""
    if not config.data.shards:
        raise ValueError("no training data: name shards with --data.shards 'FOLDER/*.tar' (see `clim-data pack`)")
    alone = not dist.is_initialized()
    return MosaicLoader(
        config.data.shards,
        batch_size=config.data.batch_size,
        mosaic=config.data.mosaic,
        seed=config.run.seed,
        rank=0 if alone else dist.get_rank(),
        world_size=1 if alone else dist.get_world_size(),
        workers=config.data.workers,
        on_error=config.data.on_error,
        background=config.data.background,
    )


def build_evaluators(config: TrainConfig, model: RegionModel) -> Evaluators:
    """Region accuracy and image-text retrieval on the files `config.evaluation` names; empty without.

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
            RegionClassification(model, embeddings, crops=where.crops, workers=config.data.workers).run, regions
        )
    if where.captions_json is not None:
        captions = ImageCaptions(where.images, where.captions_json, model.image_size[0])
        found["retrieval"] = partial(ImageTextRetrieval(model, workers=config.data.workers).run, captions)
    return found

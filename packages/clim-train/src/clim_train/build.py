"""From a configuration to the parts that a `Trainer` gets: model, task, loader and evaluators."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import clim_models
from clim_data import ImageCaptions, PanopticRegions
from clim_data.processes import Ranks
from clim_data.streams import StreamOptions
from clim_eval import ImageTextRetrieval, RegionClassification, embed_with_bar
from clim_models import RegionModel, model_config
from clim_models.towers import compile_blocks

from clim_train.config import TrainConfig
from clim_train.methods.method import BuildContext
from clim_train.methods.table import find_method
from clim_train.options.device import choose_device
from clim_train.run.randomness import seed_everything
from clim_train.task import Loader, Task
from clim_train.trainer import Evaluators


def build_model(config: TrainConfig) -> RegionModel:
    """Build the backbone; its last `model.unlocked_blocks` blocks (and logit_scale) are trainable.

    Weights without a checkpoint are random; `run.seed` makes them the same on every rank.
    """
    seed_everything(config.run.seed)
    model = clim_models.create_model(
        config.model.name,
        pretrained=config.model.pretrained,
        image_size=config.model.image_size,
    )
    model.eval_px = trained_px(config)
    model.freeze(config.model.unlocked_blocks, path=gradient_path(config))
    model.set_grad_checkpointing(config.model.grad_checkpointing)
    if config.engine.compile:
        compile_blocks(model.tower)
    return model


def gradient_path(config: TrainConfig) -> str:
    """Return the path of the image tower that the batches use; its other weights never get a
    gradient."""
    method = find_method(config.task.name)
    return method.gradient_path(config.task, config.data)


def trained_px(config: TrainConfig) -> int:
    """Return the side in pixels of the images with regions; an exported model has it in its
    configuration."""
    return find_method(config.task.name).data.largest_px(config.data)


def build_task(
    config: TrainConfig,
    model: RegionModel,
    class_names: Sequence[str] | None = (),
    trained_names: Sequence[str] = (),
    image_counts: Sequence[int] = (),
) -> Task:
    """Return the task of `config.task`.

    Call it before `model` is trained: a teacher is a copy of the model as it is.

    Args:
        class_names: classes of the loader, for methods that use them; None where only shapes count.
        trained_names: the classes that have data.
        image_counts: number of images of each class.
    """
    context = BuildContext(
        engine=config.engine,
        data=config.data,
        device=choose_device(config.engine),
        class_names=class_names,
        trained_names=trained_names,
        image_counts=image_counts,
    )
    return find_method(config.task.name).build(config.task, model, context)


def build_loader(config: TrainConfig) -> Loader:
    """Return the loader of this rank's part of the data.

    Raises ValueError where no data are named, FileNotFoundError where they do not exist.
    """
    data = config.data
    if data.cache_folder is not None:
        # Resuming without `--trust` requires that the output folders exist.
        Path(data.cache_folder).mkdir(parents=True, exist_ok=True)

    stream = StreamOptions(
        batch_size=data.batch_size,
        seed=config.run.seed,
        ranks=Ranks.of_group(),
        workers=data.workers,
        on_error=data.on_error,
        background=data.background,
        max_pixels=data.max_pixels,
        cache_folder=data.cache_folder,
        cache_shards=data.cache_shards,
    )
    return find_method(config.task.name).data.loader(data, stream, native_px(config))


def native_px(config: TrainConfig) -> int:
    """Return the side of the images that the model was made for, without building it."""
    size = config.model.image_size or model_config(config.model.name)["vision_cfg"]["image_size"]
    return size if isinstance(size, int) else size[0]


def build_evaluators(config: TrainConfig, model: RegionModel) -> Evaluators:
    """Return region accuracy and image-text retrieval on the files that `config.evaluation` names.

    Without files there are no evaluators. Raises FileNotFoundError for files that do not exist.
    """
    options = config.evaluation
    found: dict[str, Callable[[], Mapping[str, float]]] = {}

    if options.panoptic_json is not None:
        # `EvaluationConfig` refuses annotations without images.
        assert options.images is not None
        assert options.panoptic_dir is not None
        regions = PanopticRegions(
            options.images,
            options.panoptic_json,
            options.panoptic_dir,
            image_px=options.image_px,
            stride=model.stride,
            crop_px=model.image_size[0] if options.crops else None,
        )
        # The text tower is frozen, so the embeddings of the classes hold for the whole run.
        embeddings = embed_with_bar(
            model,
            regions.class_names,
            options.templates,
            cache=None,
            show=Ranks.of_group().is_first,
        )
        classification = RegionClassification(
            model, embeddings, crops=options.crops, workers=config.data.workers
        )
        found["regions"] = partial(classification.run, regions)

    if options.captions_json is not None:
        assert options.images is not None
        captions = ImageCaptions(options.images, options.captions_json, model.image_size[0])
        retrieval = ImageTextRetrieval(model, workers=config.data.workers)
        found["retrieval"] = partial(retrieval.run, captions)

    return found

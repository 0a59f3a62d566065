"""A recipe's steps on one small GPU: the same images per step, by accumulation and
checkpointing."""

from dataclasses import replace

from clim_train.config import TrainConfig
from clim_train.methods.method import PRESETS
from clim_train.methods.table import find_method


def on_small_gpu(config: TrainConfig, preset: str, *, gpus: int) -> TrainConfig:
    """Return the configuration for one GPU with 24 or 12 GB that takes the steps of `gpus` GPUs.

    A method whose loss compares all images of a step (CLIM) keeps them in one micro-batch. The
    others accumulate micro-batches, whose means over boxes are averaged. Gradient checkpointing is
    on. `clim-train estimate RECIPE --preset NAME` says whether it fits; for larger towers of your
    own add `--engine.offload optimizer`.

    Raises ValueError for an unknown preset, and where the images of a step are no multiple of a
    micro-batch.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: use one of {', '.join(PRESETS)}")

    images = config.data.batch_size * config.engine.accumulation * gpus
    sizes = find_method(config.task.name).micro_batch
    micro = images if sizes is None else sizes[preset]
    if images % micro:
        raise ValueError(
            f"{images} images per step are no multiple of {micro}: set --data.batch-size by hand"
        )

    return replace(
        config,
        model=replace(config.model, grad_checkpointing=True),
        data=replace(config.data, batch_size=micro),
        engine=replace(config.engine, accumulation=images // micro),
    )

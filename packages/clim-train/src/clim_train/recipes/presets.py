"""A recipe's steps on one small GPU: the same images per step, by accumulation and gradient
checkpointing."""

from dataclasses import replace

from clim_train.config import TrainConfig

PRESETS = {"24gb": 2, "12gb": 1}
"""Name of a preset -> images per micro-batch of the methods whose loss is a mean over images."""


def on_small_gpu(config: TrainConfig, preset: str, *, gpus: int) -> TrainConfig:
    """The configuration for one GPU with 24 or 12 GB that takes the steps of `gpus` GPUs.

    CLIM contrasts all images of a micro-batch, so they stay together, and its blocks are
    checkpointed. The other methods accumulate micro-batches, whose means over boxes are averaged.
    Fits as `clim-train estimate RECIPE --preset` says; for larger towers of your own add
    `--engine.offload optimizer`.

    Raises ValueError for an unknown preset, and when the images of a step cannot be shared out
    evenly.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: use one of {', '.join(PRESETS)}")
    images = config.data.batch_size * config.engine.accumulation * gpus
    micro = images if config.task.name == "clim" else PRESETS[preset]
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

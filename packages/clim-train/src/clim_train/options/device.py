"""Device and number format of a run."""

import torch
from clim_data.processes import local_device

from clim_train.options.sections import EngineConfig

WEIGHT_DTYPES = {
    "fp32": torch.float32,
    "amp_bf16": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Value of `engine.precision` -> dtype of the weights."""


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype of the arithmetic where the weights stay float32, or None for the weights'
    own dtype."""
    return torch.bfloat16 if precision == "amp_bf16" else None


def choose_device(engine: EngineConfig) -> torch.device:
    """Return the device of this process.

    Raises ValueError for a device or precision that this machine does not have.
    """
    has_gpu = torch.cuda.is_available()
    if engine.device == "cuda" and not has_gpu:
        raise ValueError(
            "engine.device='cuda' but torch sees no GPU: use engine.device='cpu' or 'auto'"
        )

    if engine.device == "cpu" or not has_gpu:
        if engine.precision == "fp16":
            raise ValueError(
                "engine.precision='fp16' needs a GPU: use 'fp32', 'amp_bf16' or 'bf16' on the CPU"
            )
        return torch.device("cpu")

    return local_device()

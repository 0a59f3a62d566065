"""A fingerprint of weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_weights(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, dtypes, shapes and bytes of all tensors, in the order of their names.

    Raises ValueError for an empty tensor, which is what ZeRO-3 leaves of a partitioned weight.
    """
    digest = hashlib.sha256()
    for key, value in sorted(state_dict.items()):
        if value.numel() == 0:
            raise ValueError(
                f"{key} is empty here (partitioned by ZeRO-3?): do this before the engine is "
                "built, "
                "or inside deepspeed.zero.GatheredParameters"
            )
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

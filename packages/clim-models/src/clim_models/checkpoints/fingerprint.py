"""A fingerprint of weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_weights(state_dict: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes of all tensors, in the order of their names.

    Returns:
        SHA-256, in hex digits.

    Raises:
        ValueError: an empty tensor; ZeRO-3 leaves one of a partitioned weight.
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
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()

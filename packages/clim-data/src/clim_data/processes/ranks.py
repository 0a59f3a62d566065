"""Which rank this process is, and small objects of all ranks."""

import os
from typing import Any

import torch.distributed as dist


def launched_rank() -> tuple[int, int]:
    """(rank, world_size) that the deepspeed or torchrun launcher put into the environment; (0, 1)
    without one.

    Raises:
        ValueError: RANK and WORLD_SIZE contradict each other.
    """
    rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world_size.isdigit() and int(rank) < int(world_size)):
        raise ValueError(
            f"RANK={rank} WORLD_SIZE={world_size} is no rank: unset both, or start with a launcher"
        )
    return int(rank), int(world_size)


def rank_and_world() -> tuple[int, int]:
    """(rank, number of ranks) of the running torch.distributed process group, or (0, 1) without
    one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_parts(part: Any) -> list:
    """``part`` of every rank, in rank order, on every rank. Parts are pickled: keep them on the
    CPU."""
    _, world_size = rank_and_world()
    if world_size == 1:
        return [part]
    parts = [None] * world_size
    dist.all_gather_object(parts, part)
    return parts


def alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def gather_objects(value: Any) -> list[Any]:
    """The small objects of all ranks, in their order. Collective."""
    if alone():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_first_rank(value: Any) -> Any:
    """What rank 0 gave. Collective."""
    if alone():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1

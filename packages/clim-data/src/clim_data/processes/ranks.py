"""The rank of this process, and small objects of all ranks."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

# torch is imported where it is used: commands ask the launcher for their rank before they load it.


class Ranks(NamedTuple):
    """Number of this process, from 0, and how many processes work together."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_launcher(cls) -> "Ranks":
        """Read the environment variables of the deepspeed or torchrun launcher.

        Without a launcher there is one process.

        Raises:
            ValueError: RANK and WORLD_SIZE contradict each other.
        """
        rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdigit() and world_size.isdigit() and int(rank) < int(world_size)):
            raise ValueError(
                f"RANK={rank} WORLD_SIZE={world_size} is no rank: unset both, or start with a "
                "launcher"
            )
        return cls(int(rank), int(world_size))

    @classmethod
    def of_group(cls) -> "Ranks":
        """Ask the process group of torch.distributed; without one there is one process."""
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process is rank 0, which prints and writes for all."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1


def local_device() -> "torch.device":
    """Return the GPU that the launcher gave this process, the first GPU without one, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def gather_objects(value: Any) -> list[Any]:
    """Return the objects of all ranks, in their order, on every rank. Collective.

    Objects are pickled: keep them small, and tensors on the CPU.
    """
    world_size = Ranks.of_group().world_size
    if world_size == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def from_first_rank(value: Any) -> Any:
    """Return the object of rank 0 on every rank. Collective."""
    if Ranks.of_group().is_single:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values)
    return values[0]

"""Files of weights: written whole with a checksum, and compared with it when they are read.

safetensors checks names and sizes only: after a crash or a full disk, a file of the right size may
end in zeros, and zeros pass for weights.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clim_models.checkpoints.atomic import write_whole

# Of the metadata; files of earlier releases and of others have none.
CHECKSUM = "crc32"


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal CRC-32 over names and bytes of CPU tensors."""
    crc = 0
    for name in sorted(tensors):
        data = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(data.data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write CPU tensors as safetensors with a checksum; the file is whole or does not exist.

    Args:
        tensors: none shares memory with another.
        path: its folder is made if it is not there.
        metadata: more texts for the header.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: value.contiguous() for name, value in tensors.items()}
    with write_whole(path) as draft:
        save_file(whole, draft, {**(metadata or {}), CHECKSUM: checksum(whole)})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file to the CPU, and compare them with its checksum.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """
    with _opened(path) as file:
        written = (file.metadata() or {}).get(CHECKSUM)
        # In the order of the file, where this version of safetensors can tell it.
        names = getattr(file, "offset_keys", file.keys)()
        tensors = {name: file.get_tensor(name) for name in names}
    if written is not None and written != checksum(tensors):
        raise ValueError(_damaged(path, "its tensors do not have the checksum of its header"))
    return tensors


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the texts in the header of a safetensors file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file: ValueError where it is damaged, also while it is read."""
    # The system's error for a file that cannot be opened: safetensors has another one.
    with open(path, "rb"):
        pass
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(_damaged(path, str(error))) from error


def check_values(
    own: Mapping[str, Tensor], new: Mapping[str, Tensor], *, source: str | Path
) -> None:
    """Refuse weights that a model would load and give wrong results with.

    Args:
        own: entries of the model.
        new: entries to load into it, under the same names.
        source: their file, for the message.

    Raises:
        ValueError: a weight has values that are not finite, or whole numbers in place of fractions,
            as quantised files have them.
    """
    for name, value in new.items():
        if name not in own or not own[name].is_floating_point():
            continue
        if not value.is_floating_point():
            raise ValueError(
                f"{source} has {str(value.dtype).removeprefix('torch.')} numbers in {name}, where "
                "the model has fractions: pass weights that are not quantised"
            )
        if value.is_meta:  # a shape without values
            continue
        # Numbers of 8 bits have no comparison of their own.
        values = value.float() if value.element_size() == 1 else value
        if values.numel() and not all(math.isfinite(end) for end in values.aminmax()):
            raise ValueError(
                f"{source} holds values that are no finite numbers, such as {name}: take an "
                "earlier checkpoint of its training, or another copy"
            )


def _damaged(path: str | Path, reason: str) -> str:
    return f"{path} is truncated or damaged ({reason[:160]}); download or export it again"

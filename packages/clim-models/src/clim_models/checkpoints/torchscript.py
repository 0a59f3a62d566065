"""Read the weights in a TorchScript archive without loading the archive.

OpenAI published CLIP in this format. `torch.jit.load` runs the `__setstate__` methods of an
archive, and TorchScript can write files.

An archive is a zip of `data.pkl` (a tree of modules), `data/N` (the bytes of tensor N) and
`code/...py` (classes, each with lists of its parameters and buffers). We read the first with an
unpickler that knows nothing but tensors, and the last as text.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__.*\n)*)", re.MULTILINE)
_NAMES = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)


class _Module:
    """A module of the archive: the full name of its class and its attributes."""

    kind = ""

    def __setstate__(self, state: Any) -> None:
        self.state: dict[str, Any] = state if isinstance(state, dict) else {}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return parameters and buffers as in `torch.jit.load(path).state_dict()`, on the CPU.

    Raises:
        pickle.UnpicklingError: the archive holds something else than modules, tensors and plain
            values.
        KeyError, RuntimeError, zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("constants.pkl"))
        prefix = folder.removesuffix("constants.pkl")
        owned = dict(_classes(archive, prefix + "code/"))
        with archive.open(prefix + "data.pkl") as file:
            top = _Reader(file, archive, prefix).load()
    if not isinstance(top, _Module):
        raise pickle.UnpicklingError("the archive has no module at its top")
    return dict(_tensors(top, owned, "", ()))


def _classes(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the full name of each module class with the names of its parameters and buffers."""
    for name in archive.namelist():
        if name.startswith(folder) and name.endswith(".py"):
            module = name.removeprefix(folder).removesuffix(".py").replace("/", ".")
            for kind, head in _CLASS.findall(archive.read(name).decode()):
                yield (
                    f"{module}.{kind}",
                    set(re.findall(r'"([^"]*)"', " ".join(_NAMES.findall(head)))),
                )


def _tensors(
    module: _Module, owned: dict[str, set[str]], prefix: str, above: tuple[int, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module and of the modules in it, with their state dict names."""
    if id(module) in above:
        raise pickle.UnpicklingError("a module of the archive contains itself")
    for name, value in getattr(module, "state", {}).items():
        if isinstance(value, _Module) and value.kind in owned:
            yield from _tensors(value, owned, f"{prefix}{name}.", (*above, id(module)))
        elif isinstance(value, Tensor) and name in owned.get(module.kind, ()):
            yield prefix + name, value


class _Reader(pickle.Unpickler):
    """Unpickler of modules (as their attributes), tensors and lists; it refuses everything else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, prefix: str):
        super().__init__(file, encoding="utf-8")
        self._archive = archive
        self._prefix = prefix
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type("_ArchivedModule", (_Module,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":
            return _first
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a module nor a tensor")
        return known[module, name]

    def persistent_load(self, key: Any) -> Tensor:
        _, dtype, name, _, _ = key
        if name not in self._storages:
            content = bytearray(self._archive.read(f"{self._prefix}data/{name}"))
            self._storages[name] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[name]


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    """Return a list or dict without its element type, which does not matter here."""
    return value

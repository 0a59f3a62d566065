"""Programs that run inside this process: what they print, and on which devices they compute."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.modules.module import register_module_forward_pre_hook


@contextlib.contextmanager
def devices_of_modules() -> Iterator[set[str]]:
    """Types of the devices on which the modules that run inside have their weights."""
    devices: set[str] = set()

    def look(module: torch.nn.Module, inputs: tuple) -> None:
        devices.update(weight.device.type for weight in module.parameters(recurse=False))

    handle = register_module_forward_pre_hook(look)
    try:
        yield devices
    finally:
        handle.remove()


def quietly(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> str:
    """Run a command and return what it printed; RuntimeError with all of it where its status is not
    0."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(arguments)
    if status:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with status {status}: {said.getvalue()[-2000:]}"
        )
    return said.getvalue()

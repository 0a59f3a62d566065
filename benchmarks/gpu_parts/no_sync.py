"""Places where Python waits for the GPU.

On a GPU, `torch.cuda.set_sync_debug_mode("warn")` names each of them; a rehearsal on a CPU finds
most of them as well, because the operators that have to wait are known by name. A waiting place
costs the whole queue of kernels that Python had run ahead, so a training step and a dense forward
have none, but for places that are named with a reason.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_parts.record import Part

OURS = ("clim_data", "clim_models", "clim_train", "clim_eval", "flmm")

# Operators whose result, or whose size of it, Python has to know before it can go on.
WAITING = frozenset(
    f"aten.{name}"
    for name in (
        "_local_scalar_dense",  # item(), float(x), bool(x), `if x:`
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "equal",
        "bincount",
    )
)

# Methods that hand values to Python. On a CPU some of them call no operator at all.
READING = frozenset({Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__})

# `torch.tensor(values, device=gpu)` copies from memory that is not pinned and waits until the copy
# is done.
MAKING = frozenset({torch.tensor, torch.as_tensor})


class Places:
    """Where Python waited, in the order of the calls, each place once.

    Args:
        allowed: "file.py:function" anywhere on the stack -> the reason why it may wait there.
    """

    def __init__(self, allowed: Mapping[str, str]):
        self.allowed = dict(allowed)
        self.found: list[str] = []
        self.excused: list[str] = []

    def add(self, what: str) -> None:
        """Note the current line of Python."""
        frames = [frame for frame in traceback.extract_stack() if not _is_watcher(frame)]
        names = {f"{Path(frame.filename).name}:{frame.name}" for frame in frames}
        known = self.excused if names & self.allowed.keys() else self.found
        place = f"{what} at {_line(frames)}"
        if place not in known:
            known.append(place)


@contextmanager
def watch(device: torch.device, allowed: Mapping[str, str] | None = None) -> Iterator[Places]:
    """Collect the places where Python waits for `device` while the block runs.

    Call what is watched once or twice before: see `check_no_sync`.
    """
    places = Places(allowed or {})
    if device.type == "cuda":
        with _watch_gpu(places):
            yield places
    else:
        with _Calls(places), _Operators(places):
            yield places


def check_no_sync(
    part: Part, name: str, call: Callable[[], Any], allowed: Mapping[str, str] | None = None
) -> None:
    """Report whether `call` runs without waiting for the device, but for the allowed places.

    Two calls go before on a GPU: caches, kernel choice and allocators wait at first.
    """
    for _ in range(2 if part.on_gpu else 0):
        call()
    if part.on_gpu:
        torch.cuda.synchronize(part.device)
    with watch(part.device, allowed) as places:
        call()
    excused = [f"allowed: {place}" for place in places.excused]
    part.check(name, not places.found, "; ".join([*places.found, *excused]))


def to_fake_gpu(model: nn.Module) -> nn.Module:
    """Give a model weights that only stand for shapes on a GPU; call it inside `FakeTensorMode()`.

    Fake tensors know their device, so a CPU finds copies between devices, and operators whose
    inputs are on two devices.
    """
    for module in model.modules():
        for weights in (module._parameters, module._buffers):
            for name, weight in weights.items():
                if weight is not None:
                    weights[name] = _fake_like(weight)
    return model


def _fake_like(weight: Tensor) -> Tensor:
    fake = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
    return nn.Parameter(fake, weight.requires_grad) if isinstance(weight, nn.Parameter) else fake


@contextmanager
def _watch_gpu(places: Places) -> Iterator[None]:
    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            places.add("wait")

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings puts the former function back. "warn" instead of "error": one run names all
        # places.
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


class _Operators(TorchDispatchMode):
    """Notes each operator that would wait on a GPU."""

    def __init__(self, places: Places):
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        waits = _waits(func, args, kwargs)
        if waits:
            self.places.add(waits)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Notes calls that hand values from the device to Python or back, which are silent on a CPU."""

    def __init__(self, places: Places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is Tensor.new_tensor or (func in READING and func is not Tensor.item):
            # item() is noted as an operator. Numbers of new_tensor are copied like those of `MAKING`.
            self.places.add(func.__name__)
        elif (
            func in MAKING and kwargs.get("device") is not None and not isinstance(args[0], Tensor)
        ):
            self.places.add(f"{func.__name__}(..., device=...)")
        return func(*args, **kwargs)


def _waits(func: Any, args: tuple, kwargs: dict[str, Any]) -> str | None:
    """Name the reason why an operator waits, None when it does not."""
    packet = str(func.overloadpacket)
    if packet in WAITING:
        return packet
    if packet == "aten.repeat_interleave" and kwargs.get("output_size") is None:
        return f"{packet} without output_size"
    if packet in ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"):
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        # One mask and one value is a masked_fill, which does not wait.
        filled = packet != "aten.index" and len(args[1]) == 1 and args[2].numel() == 1
        return f"{packet} with a mask" if masks and not filled else None
    if packet in ("aten._to_copy", "aten.copy_"):
        return _copy_waits(packet, args, kwargs)
    return None


def _copy_waits(packet: str, args: tuple, kwargs: dict[str, Any]) -> str | None:
    """A copy between devices waits unless it is non_blocking (only fake tensors have two devices on
    a CPU)."""
    if packet == "aten.copy_":
        target, source = args[0].device, args[1].device
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    else:
        source, non_blocking = args[0].device, kwargs.get("non_blocking", False)
        target = torch.device(kwargs.get("device") or source)
    crosses = source.type != target.type
    return f"copy from {source.type} to {target.type}" if crosses and not non_blocking else None


def _is_watcher(frame: traceback.FrameSummary) -> bool:
    """Whether the frame only reports the wait; a warning passes through Python's own module."""
    return frame.filename in (__file__, warnings.__file__) or (
        "torch/utils/_python_dispatch" in frame.filename
    )


def _line(frames: list[traceback.FrameSummary]) -> str:
    """The innermost frame of our packages, else the innermost outside torch:
    "pooling.py:align_boxes line 98"."""
    ours = [f for f in frames if any(f"/{package}/" in f.filename for package in OURS)]
    outside = [f for f in frames if "/site-packages/torch/" not in f.filename]
    if outside and "/deepspeed/" in outside[-1].filename:
        ours = []  # called by us, but DeepSpeed is who waits
    frame = (ours or outside or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.name} line {frame.lineno}"

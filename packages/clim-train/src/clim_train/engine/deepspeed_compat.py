"""Everything that DeepSpeed does not promise, in one place: private names, patched attributes, side
effects.

Tried with the versions in `TRIED_VERSIONS`. `PRIVATE_NAMES` lists names that another version may
change; a test reports which are missing and what uses them.
"""

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from clim_data.processes import watch_launcher
from clim_models.checkpoints import check_archive
from torch import Tensor, nn

from clim_train.run.stopping import StopRequest

TRIED_VERSIONS = ("0.19.8",)

_ZERO12 = "deepspeed.runtime.zero.stage_1_and_2.DeepSpeedZeroOptimizer"
_ONE_ORDER = "ranks with different kinds of samples add gradients of the same parameters"

PRIVATE_NAMES = {
    "deepspeed.ops.__compatible_ops__": "collectives on CPUs are gloo's, nothing is compiled",
    "deepspeed.runtime.engine.DeepSpeedEngine._copy_recovery_script": "it is not copied",
    "deepspeed.runtime.checkpoint_engine.checkpoint_engine.CheckpointEngine.save": (
        "a full disk on one rank does not leave the others waiting"
    ),
    "deepspeed.runtime.engine.DeepSpeedEngine.allreduce_gradients": _ONE_ORDER,
    f"{_ZERO12}.process_gradients": _ONE_ORDER,
    f"{_ZERO12}.get_gradient_for_reduction": _ONE_ORDER,
    "deepspeed.runtime.zero.parameter_offload.FWD_MODULE_STACK": "a closed engine is freed",
    "deepspeed.runtime.zero.parameter_offload.DeepSpeedZeRoOffload.partition_all_parameters": (
        "evaluation sees whole weights under ZeRO-3"
    ),
    "deepspeed.runtime.zero.parameter_offload.DeepSpeedZeRoOffload._remove_module_hooks": (
        "evaluation sees whole weights under ZeRO-3"
    ),
    "deepspeed.runtime.zero.parameter_offload.DeepSpeedZeRoOffload.setup_zero_stage3_hooks": (
        "training goes on after an evaluation under ZeRO-3"
    ),
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": "checkpoints are read as tensors only",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": "checkpoints are read as tensors only",
    "deepspeed.runtime.zero.config.ZeroStageEnum": "checkpoints are read as tensors only",
    "deepspeed.utils.tensor_fragment.fragment_address": "checkpoints are read as tensors only",
    "deepspeed.checkpoint.ds_to_universal.main": "`clim-train convert`",
}
"""Full name -> our code that needs it."""


# -- start
# ---------------------------------------------------------------------------------------------


def start_distributed(device: torch.device, *, timeout_minutes: int = 30) -> None:
    """Join the process group of the launcher (deepspeed, torchrun), or make one of a single
    process.

    From here on, the end of the launcher is a request to stop; see `watch_launcher`. A second call
    does nothing: the timeout of the first one stays, after which a collective that waits for
    another rank fails. Raises ValueError where the process group is of another kind of device.
    """
    watch_launcher(StopRequest.ask_active)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    if "RANK" not in os.environ:
        single = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        # The system chooses a free port, when it is bound: no other program can take it before.
        os.environ.update(single, MASTER_PORT="0")
    if device.type == "cuda":
        torch.cuda.set_device(device)

    # Imported after DS_ACCELERATOR is set: the import decides on the kind of device.
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    used = deepspeed.get_accelerator().device_name()
    if used != device.type:
        raise ValueError(
            f"DeepSpeed already uses {used!r} in this process, not {device.type!r}: "
            "start a new process for the other device"
        )

    if device.type == "cpu":
        # The shared-memory collectives would be compiled on first use; gloo works without them.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    if not torch.distributed.is_initialized() or not deepspeed.comm.is_initialized():
        hook = sys.excepthook
        deepspeed.init_distributed(
            dist_backend="gloo" if device.type == "cpu" else "nccl",
            timeout=timedelta(minutes=timeout_minutes),
            verbose=False,
        )
        if torch.distributed.get_world_size() == 1:
            # torch begins each line of a traceback with "[rank0]:", which tells nothing here.
            sys.excepthook = hook


# -- a running engine
# ----------------------------------------------------------------------------------


def without_exchange(engine: Any) -> None:
    """Switch off the exchange of gradients; for a single rank without ZeRO, whose gradients are
    whole.

    The exchange would copy all gradients into one buffer and back.
    """
    engine.enable_backward_allreduce = False


class GradientOrder:
    """The order in which ZeRO-1 and 2 exchange gradients: the same on every rank.

    DeepSpeed adds what lies at the same place of the ranks' buffers, and each rank fills its buffer
    in the order of its own backward pass. A rank without boxes, or without one kind of images, can
    have another order or fewer gradients: then those of different parameters would be added. Here a
    gradient waits for those before it, and one that a rank does not have is zero.

    Args:
        engine: DeepSpeed's, of stage 1 or 2. Two of its methods are replaced until `undo`.
    """

    def __init__(self, engine: Any) -> None:
        self._engine, self._optimizer = engine, engine.optimizer
        self._take = engine.optimizer.process_gradients
        self._exchange = engine.allreduce_gradients

        groups = {id(p): i for i, group in enumerate(engine.optimizer.bit16_groups) for p in group}
        # The backward pass begins with the last parameters, so few gradients have to wait.
        self._order = [(p, groups[id(p)]) for p in reversed(list(engine.module.parameters()))]
        self._taken = 0
        self._ready: set[int] = set()

        engine.optimizer.process_gradients = self._add
        engine.allreduce_gradients = self._finish

    def undo(self) -> None:
        """Give the engine its own methods back."""
        del self._engine.allreduce_gradients, self._optimizer.process_gradients

    def _add(self, parameter: nn.Parameter, group: int) -> None:
        """Note the gradient of a parameter, and pass on all whose turn it is."""
        self._ready.add(id(parameter))
        while self._taken < len(self._order) and id(self._order[self._taken][0]) in self._ready:
            self._take(*self._order[self._taken])
            self._taken += 1

    def _finish(self, *arguments: Any, **options: Any) -> None:
        """Pass on the others after the backward pass, then exchange."""
        for parameter, group in self._order[self._taken :]:
            if self._optimizer.get_gradient_for_reduction(parameter) is None:
                parameter.grad = torch.zeros_like(parameter)
            self._take(parameter, group)

        self._taken = 0
        self._ready.clear()
        self._exchange(*arguments, **options)


def own_part(parameter: nn.Parameter) -> Tensor:
    """Return this rank's part of a parameter: its partition under ZeRO-3, else the whole
    parameter.

    The padding of a partition is left out, so the part is flat and may be empty under ZeRO-3.
    """
    partition = getattr(parameter, "ds_tensor", None)
    if partition is None:
        return parameter.detach()

    # Partitions are equally long. Where the elements do not fill the last ones, the rest is memory
    # that DeepSpeed never writes: any numbers, also NaN.
    private: Any = parameter
    # `ds_zero_partition_rank` says the same from DeepSpeed 0.19.1 on.
    start = torch.distributed.get_rank(private.ds_process_group) * partition.numel()
    held = max(private.ds_numel - start, 0)
    return partition.detach()[:held]


@contextmanager
def whole_parameters(engine: Any) -> Iterator[None]:
    """Gather all parameters of a ZeRO-3 engine inside the context, whoever reads them."""
    import deepspeed

    # ZeRO-3's hooks would take a parameter away again after the first module that used it.
    offload = engine.optimizer.parameter_offload
    offload.partition_all_parameters()
    offload._remove_module_hooks()
    _forget_running_module()
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        yield
    offload.setup_zero_stage3_hooks()


def zero3_eraser() -> Callable[[nn.Module], None]:
    """Return a function that removes the global state of a ZeRO-3 engine.

    Call this before the engine is made, and the result with the engine's module after the engine
    is destroyed, or after it could not be made. The result is safe for engines of all stages.
    """
    from deepspeed.runtime.zero import parameter_offload

    linear = torch.nn.functional.linear
    running = parameter_offload.FWD_MODULE_STACK
    depth = len(running)

    def erase(module: nn.Module) -> None:
        # ZeRO-3's hooks leave the root in this global list, and an error inside a forward pass
        # leaves more modules: it would keep the model alive.
        del running[depth:]

        # ZeRO-3 puts its own function in place, for every module of the process; it rounds
        # differently in 16 bits.
        torch.nn.functional.linear = linear

        # Modules have a dict of parameters that gathers them on access.
        for part in module.modules():
            original: Any = getattr(part, "_original_parameters", None)
            if original is not None:
                part._parameters = original

    return erase


def _forget_running_module() -> None:
    """Remove the entry that ZeRO-3's hooks put into a global list each time they are set up."""
    from deepspeed.runtime.zero import parameter_offload

    parameter_offload.FWD_MODULE_STACK.pop()


# -- checkpoints
# ---------------------------------------------------------------------------------------


def save_checkpoint(engine: Any, folder: Path, tag: str) -> None:
    """Write this rank's files of the checkpoint `folder`/`tag`. Collective.

    Raises OSError or RuntimeError (torch's writer) on the ranks that could not write, after the
    collective part.
    """
    failed: list[Exception] = []
    write = engine.checkpoint_engine.save

    def write_or_remember(*arguments: Any, **options: Any) -> None:
        # The ranks wait for each other between files: an error that left here would leave the
        # others waiting.
        if failed:
            return
        try:
            write(*arguments, **options)
        except (OSError, RuntimeError) as error:
            failed.append(error)

    engine.checkpoint_engine.save = write_or_remember
    # Rank 0 would copy a script that reads checkpoints into the folder: `clim-train export` does
    # that.
    engine._copy_recovery_script = lambda path: None
    try:
        engine.save_checkpoint(
            str(folder), tag=tag, save_latest=False, exclude_frozen_parameters=True
        )
    finally:
        del engine.checkpoint_engine.save

    if failed:
        raise failed[0]


@contextmanager
def only_tensors(source: Path, *, leave_out: str = "") -> Iterator[None]:
    """Let `torch.load` read tensors, plain values and four classes of DeepSpeed's inside the
    context.

    DeepSpeed asks for whole pickles, which could run anything; torch can be told to refuse them,
    whatever a caller asks for. The classes hold numbers, and making them does nothing else.

    Args:
        source: a file, or a folder with all files of torch below it.
        leave_out: pattern for names of files that are not read inside the context.

    Raises:
        ValueError: a file has other classes, or unpacks to far more than its size.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    files = [source] if source.is_file() else sorted(source.rglob("*.pt"))
    for path in files:
        if not fnmatch(path.name, leave_out):
            check_archive(path)

    classes = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    switches = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        with torch.serialization.safe_globals(classes):
            yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{source} holds Python objects that could run code, so training did not write it as "
            "it "
            "is: use a checkpoint from a source you know"
        ) from error
    finally:
        _restore_environment(before.items())


def _restore_environment(before: Iterable[tuple[str, str | None]]) -> None:
    for name, value in before:
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


def to_universal(checkpoint: Path, output: Path) -> None:
    """Rewrite a checkpoint so that any number of ranks can load it (DeepSpeed's universal
    checkpoint).

    Nothing in the files is executed. Raises ValueError where one holds more than tensors and plain
    values.
    """
    from deepspeed.checkpoint.ds_to_universal import main

    # The function takes what its command line would have parsed.
    options = SimpleNamespace(
        input_folder=str(checkpoint),
        output_folder=str(output),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with only_tensors(checkpoint):
        main(options)

"""What the engine needs of DeepSpeed beyond its public interface."""

import logging
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch


def start_distributed(device: torch.device, *, timeout_minutes: int = 30) -> None:
    """Joins the process group of the launcher (deepspeed, torchrun), or makes one of a single
    process.

    Safe to call again; the timeout, after which a collective that waits for another rank fails, is
    that of the first call. Raises ValueError when the process group is of another kind of device.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if deepspeed.get_accelerator().device_name() != device.type:
        raise ValueError(
            f"DeepSpeed already uses {deepspeed.get_accelerator().device_name()!r} in this "
            "process, not "
            f"{device.type!r}: start a new process for the other device"
        )
    if device.type == "cpu":
        # The shared-memory collectives would be compiled on first use; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized() or not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(
            dist_backend="gloo" if device.type == "cpu" else "nccl",
            timeout=timedelta(minutes=timeout_minutes),
            verbose=False,
        )


@contextmanager
def only_tensors(source: Path) -> Iterator[None]:
    """Inside, `torch.load` reads tensors, plain values and the few classes in DeepSpeed's
    checkpoints, nothing else.

    DeepSpeed asks for whole pickles, which could run anything; torch can be told to refuse them
    whatever a caller asks for. The classes let through hold numbers, and making them does nothing
    else. Raises ValueError for a file that has others; `source` is named in the message.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    switches = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        with torch.serialization.safe_globals(
            [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
        ):
            yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{source} holds Python objects that could run code, so training did not write it as "
            "it is: "
            "use a checkpoint from a source you know"
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def forget_running_module() -> None:
    """Takes back the entry that ZeRO-3's hooks leave in a global list, which would keep the model
    alive."""
    from deepspeed.runtime.zero import parameter_offload

    parameter_offload.FWD_MODULE_STACK.pop()


def to_universal(checkpoint: Path, output: Path) -> None:
    """Rewrites a checkpoint folder so that any number of ranks can load it (DeepSpeed's universal
    checkpoint).

    Nothing in the files is executed; raises ValueError when one holds more than tensors and plain
    values.
    """
    from deepspeed.checkpoint.ds_to_universal import main

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

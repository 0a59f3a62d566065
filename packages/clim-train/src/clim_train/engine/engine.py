"""DeepSpeed's configuration, and one engine around an `EngineModule`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from clim_data.processes import Ranks
from torch import Tensor

from clim_train.engine.deepspeed_compat import forget_running_module, only_tensors
from clim_train.engine.module import EngineModule, replace_parameters, scalars_to_vectors
from clim_train.engine.optim import build_optimizer
from clim_train.options.device import WEIGHT_DTYPES, autocast_dtype
from clim_train.options.run_options import RunOptions
from clim_train.task import Task

BUCKET_ELEMENTS = 50_000_000
"""Gradients that are exchanged at once."""


def deepspeed_config(config: RunOptions, *, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration for a run. The optimizer is ours (torch AdamW), so nothing is
    compiled.

    Args:
        config: its `engine.zero_stage` is a number, see `EngineConfig.for_ranks`.
        universal: the next checkpoint that is loaded was converted with `to_universal`.
    """
    engine = config.engine
    assert engine.zero_stage is not None
    # DeepSpeed's default takes 2 GB for float32 gradients, more than all gradients of most towers.
    zero: dict[str, Any] = {
        "stage": engine.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if engine.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = engine.whole_below
    if engine.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if engine.offload == "optimizer_and_parameters":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": config.data.batch_size,
        "gradient_accumulation_steps": engine.accumulation,
        "gradient_clipping": config.optim.clip_norm or 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Offloaded states are updated by torch's AdamW on the CPU: DeepSpeed's own has to be
        # compiled.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": engine.precision == "bf16"},
        "fp16": {"enabled": engine.precision == "fp16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
    }


class Engine:
    """A DeepSpeed engine over the trainable parts of a task: forward, backward, step, save, load.

    Several engines can live one after another in a process, each closed before the next begins.

    Args:
        task: moved and cast here. Its 0-dimensional parameters have shape (1,) until `close`.
        config: of the run.
        device: from `choose_device`; `start_distributed` was called.
        universal: see `deepspeed_config`.
    """

    def __init__(
        self, task: Task, config: RunOptions, *, device: torch.device, universal: bool = False
    ):
        import deepspeed

        config = replace(config, engine=config.engine.for_ranks(Ranks.of_group().world_size))
        self.task, self.config, self.device = task, config, device
        self._shapes = {name: p.shape for name, p in task.trainable_parameters().items()}
        precision = config.engine.precision
        task.model.to(device=device, dtype=WEIGHT_DTYPES[precision])
        task.model.eval()
        scalars_to_vectors(task)
        autocast = autocast_dtype(precision)
        module = EngineModule(task, device_type=device.type, autocast=autocast)
        optimizer = build_optimizer(
            task.trainable_parameters(),
            config.optim,
            bounds=getattr(task, "parameter_bounds", None),
            fused=device.type == "cuda" and config.engine.offload == "none",
        )
        self._linear = torch.nn.functional.linear
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=deepspeed_config(config, universal=universal)
        )
        if config.engine.zero_stage == 0 and Ranks.of_group().is_single:
            # Alone, the exchange would copy all gradients into one buffer and back.
            self._engine.enable_backward_allreduce = False
        self._register_direct_parameters()
        self._engine.train()

    @property
    def world_size(self) -> int:
        return Ranks.of_group().world_size

    @property
    def rank(self) -> int:
        return Ranks.of_group().rank

    def forward_backward(self, batch: Any) -> dict[str, Tensor]:
        """One micro-batch: adds its gradient, returns the task's detached scalars (this rank's, on
        the device)."""
        loss, scalars = self._engine(batch)
        self._engine.backward(loss)
        return scalars

    def step(self, lr: float) -> None:
        """Call after every micro-batch; the optimizer steps, at `lr`, after each
        `engine.accumulation` of them."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()

    @property
    def updates_left_out(self) -> int:
        """Optimizer steps that ZeRO did not take, because a gradient was not finite (usual with
        fp16 only)."""
        return self._engine.skipped_steps

    def save(self, folder: Path, tag: str) -> None:
        """Every rank writes its part of `folder`/`tag`. Collective.

        Raises OSError or RuntimeError (torch's writer) on the ranks that could not write, after the
        collective part.
        """
        failed: list[Exception] = []
        write = self._engine.checkpoint_engine.save

        def write_or_remember(*arguments: Any, **options: Any) -> None:
            # The ranks wait for each other between files: an error that left here would leave the
            # others waiting.
            if failed:
                return
            try:
                write(*arguments, **options)
            except (OSError, RuntimeError) as error:
                failed.append(error)

        self._engine.checkpoint_engine.save = write_or_remember
        # A script that reads checkpoints, copied beside them by rank 0: the command `export` does
        # that here.
        self._engine._copy_recovery_script = lambda path: None
        try:
            self._engine.save_checkpoint(
                str(folder), tag=tag, save_latest=False, exclude_frozen_parameters=True
            )
        finally:
            del self._engine.checkpoint_engine.save
        if failed:
            raise failed[0]

    def weights_finite(self) -> Tensor:
        """A bool on the device: whether all weights that this rank holds are finite."""
        held = [getattr(p, "ds_tensor", p).detach() for p in self._engine.module.parameters()]
        return torch.stack([tensor.isfinite().all().to(self.device) for tensor in held]).all()

    def load(self, folder: Path, tag: str) -> None:
        """Weights, optimizer and counters of `folder`/`tag`, exactly as saved. Collective.

        Nothing in the files is executed. Raises FileNotFoundError when nothing was loaded,
        ValueError when a file holds more than tensors and plain values.
        """
        with only_tensors(folder / tag):
            path, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise FileNotFoundError(
                f"{folder / tag} holds no DeepSpeed checkpoint: resume another run or checkpoint"
            )

    def trained_weights(self) -> dict[str, Tensor]:
        """Name -> float32 CPU tensor of every trainable parameter, whole, on every rank.
        Collective."""
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, parameter in self._engine.module.model.named_parameters():
            full = (
                parameter.data
                if self.config.engine.zero_stage == 0
                else safe_get_full_fp32_param(parameter)
            )
            weights[name] = full.detach().float().cpu().reshape(self._shapes[name]).clone()
        return weights

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the task's model is whole and in evaluation mode, so that anything may read
        it."""
        self._engine.eval()
        if self.config.engine.zero_stage < 3:
            yield
        else:
            with self._whole_parameters():
                yield
        self._engine.train()

    def close(self) -> dict[str, Tensor]:
        """Ends the engine and gives the task's model back: whole, float32, trained weights,
        ordinary parameters.

        Returns `trained_weights` and the buffers of the trained modules. Collective.
        """
        weights = self.trained_weights()
        buffers = {name: buffer.cpu() for name, buffer in self._engine.module.model.named_buffers()}
        self._engine.destroy()
        if self.config.engine.zero_stage == 3:
            self._forget_zero3()
        del self._engine
        self.task.model.float()
        replace_parameters(
            self.task.model, {name: w.to(self.device) for name, w in weights.items()}
        )
        self.task.model.eval()
        return {**buffers, **weights}

    def _register_direct_parameters(self) -> None:
        """ZeRO-3 gathers a parameter when its module runs; these are read without that, so the root
        gathers them."""
        if self.config.engine.zero_stage != 3:
            return
        import deepspeed

        direct = getattr(self.task.model, "direct_parameters", list)()
        inside_mixed = [
            p for m in _stand_ins(self._engine.module.model) for p in m.parameters(recurse=False)
        ]
        registered = {id(p): p for p in [*direct, *inside_mixed] if p.requires_grad}
        for parameter in registered.values():
            deepspeed.zero.register_external_parameter(self._engine.module, parameter)

    @contextmanager
    def _whole_parameters(self) -> Iterator[None]:
        # ZeRO-3's hooks would take a parameter away again after the first module that used it.
        import deepspeed

        offload = self._engine.optimizer.parameter_offload
        offload.partition_all_parameters()
        offload._remove_module_hooks()
        forget_running_module()
        with deepspeed.zero.GatheredParameters(list(self._engine.module.parameters())):
            yield
        offload.setup_zero_stage3_hooks()

    def _forget_zero3(self) -> None:
        forget_running_module()
        # ZeRO-3 puts its own in place, for every module of the process, which rounds otherwise in
        # 16 bits.
        torch.nn.functional.linear = self._linear
        for module in self._engine.module.modules():
            if hasattr(module, "_original_parameters"):
                module._parameters = module._original_parameters


def _stand_ins(tree: torch.nn.Module) -> list[torch.nn.Module]:
    """The empty modules of `trainable_tree`, which never run themselves."""
    return [module for module in tree.modules() if type(module) is torch.nn.Module]

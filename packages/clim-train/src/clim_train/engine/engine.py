"""DeepSpeed's configuration, and one engine around an `EngineModule`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from clim_data.processes import Ranks
from torch import Tensor, nn

from clim_train.engine.deepspeed_compat import (
    GradientOrder,
    only_tensors,
    own_part,
    save_checkpoint,
    whole_parameters,
    without_exchange,
    zero3_eraser,
)
from clim_train.engine.module import EngineModule, replace_parameters, scalars_to_vectors
from clim_train.engine.optim import build_optimizer, norm_parameters
from clim_train.options.device import WEIGHT_DTYPES, autocast_dtype
from clim_train.options.run_options import RunOptions
from clim_train.run.randomness import RANK_FILES
from clim_train.task import Task

BUCKET_ELEMENTS = 50_000_000
"""Number of gradients that are exchanged at once."""


def deepspeed_config(config: RunOptions, *, universal: bool = False) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a run.

    The optimizer is ours (one of torch's), so nothing is compiled.

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
        # torch's optimizers update offloaded states on the CPU: DeepSpeed's own has to be compiled.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": engine.precision == "bf16"},
        "fp16": {"enabled": engine.precision == "fp16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
    }


class Engine:
    """A DeepSpeed engine over the trainable parts of a task: forward, backward, step, save, load.

    A process can have several engines one after another; close each before the next begins.

    Args:
        task: moved and cast here. Its 0-dimensional parameters have shape (1,) until `close`.
        config: of the run.
        device: from `choose_device`; `start_distributed` was called.
        universal: see `deepspeed_config`.
    """

    def __init__(
        self, task: Task, config: RunOptions, *, device: torch.device, universal: bool = False
    ) -> None:
        import deepspeed

        world_size = Ranks.of_group().world_size
        config = replace(config, engine=config.engine.for_ranks(world_size))
        self.task = task
        self.config = config
        self.device = device
        self._shapes = {name: p.shape for name, p in task.trainable_parameters().items()}

        precision = config.engine.precision
        task.model.to(device=device, dtype=WEIGHT_DTYPES[precision])
        task.model.eval()
        scalars_to_vectors(task)

        module = EngineModule(task, device_type=device.type, autocast=autocast_dtype(precision))
        optimizer = build_optimizer(
            task.trainable_parameters(),
            config.optim,
            norms=norm_parameters(task.model),
            bounds=getattr(task, "parameter_bounds", None),
            fused=device.type == "cuda" and config.engine.offload == "none",
        )
        self._erase_zero3 = zero3_eraser()
        try:
            self._engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=optimizer,
                config=deepspeed_config(config, universal=universal),
            )
        except BaseException:
            self._erase_zero3(module)
            raise

        self._order: GradientOrder | None = None
        if self._stage in (1, 2) and world_size > 1:
            self._order = GradientOrder(self._engine)
        if self._stage == 0 and world_size == 1:
            without_exchange(self._engine)
        if self._stage == 3:
            self._register_direct_parameters()
        self._engine.train()

    @property
    def _stage(self) -> int:
        stage = self.config.engine.zero_stage
        assert stage is not None
        return stage

    def forward_backward(self, batch: Any) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch.

        Returns the task's detached scalars: of this rank, on the device.
        """
        loss, scalars = self._engine(batch)
        self._engine.backward(loss)
        return scalars

    def step(self, lr: float) -> None:
        """Count a micro-batch; the optimizer steps, at `lr`, after each `engine.accumulation` of
        them.

        Call it after every `forward_backward`.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()

    @property
    def updates_left_out(self) -> int:
        """Number of optimizer steps that ZeRO skipped because a gradient was not finite.

        With fp16 some are normal.
        """
        return self._engine.skipped_steps

    def save(self, folder: Path, tag: str) -> None:
        """Write this rank's files of the checkpoint `folder`/`tag`. Collective.

        Raises OSError or RuntimeError (torch's writer) on the ranks that could not write, after the
        collective part.
        """
        save_checkpoint(self._engine, folder, tag)

    def weights_finite(self) -> Tensor:
        """Return a bool on the device: whether all weights that this rank holds are finite."""
        finite = []
        for parameter in self._engine.module.parameters():
            finite.append(own_part(parameter).isfinite().all().to(self.device))
        return torch.stack(finite).all()

    def load(self, folder: Path, tag: str) -> None:
        """Load weights, optimizer and counters of `folder`/`tag`, exactly as saved. Collective.

        Nothing in the files is executed. Raises FileNotFoundError where nothing was loaded,
        ValueError where a file holds more than tensors and plain values.
        """
        # Random numbers and means are not DeepSpeed's: who reads them checks them.
        with only_tensors(folder / tag, leave_out=RANK_FILES):
            path, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise FileNotFoundError(
                f"{folder / tag} holds no DeepSpeed checkpoint: resume another run or checkpoint"
            )

    def trained_weights(self) -> dict[str, Tensor]:
        """Return name -> whole float32 CPU tensor of every trainable parameter, on every rank.

        Collective.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, parameter in self._engine.module.model.named_parameters():
            whole = parameter.data if self._stage == 0 else safe_get_full_fp32_param(parameter)
            # A copy: the engine goes on changing its own.
            weights[name] = whole.detach().float().cpu().reshape(self._shapes[name]).clone()
        return weights

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Make the task's model whole and put it into evaluation mode, for anything that reads
        it."""
        self._engine.eval()
        if self._stage < 3:
            yield
        else:
            with whole_parameters(self._engine):
                yield
        self._engine.train()

    def close(self) -> dict[str, Tensor]:
        """End the engine and leave the trained weights in the task's model.

        The model is whole and float32 again, with ordinary parameters. Returns `trained_weights`
        and the buffers of the trained modules. Collective.
        """
        weights = self.trained_weights()
        module = self._engine.module
        buffers = {name: buffer.cpu() for name, buffer in module.model.named_buffers()}

        del module
        self.discard()

        model = self.task.model.float()
        on_device = {name: weight.to(self.device) for name, weight in weights.items()}
        replace_parameters(model, on_device)
        model.eval()
        return {**buffers, **weights}

    def discard(self) -> None:
        """End the engine after an error, without saving its weights. Not collective.

        The process is as it was before the engine; the task's model may hold parts of its weights
        only.
        """
        module = self._engine.module
        if self._order is not None:
            self._order.undo()
            self._order = None
        self._engine.destroy()
        self._erase_zero3(module)
        del self._engine

    def _register_direct_parameters(self) -> None:
        """Let the root gather parameters that are read outside the forward of their own module.

        ZeRO-3 gathers the others when their module runs.
        """
        import deepspeed

        module = self._engine.module
        direct = [*getattr(self.task.model, "direct_parameters", list)()]
        for stand_in in _stand_ins(module.model):
            direct += stand_in.parameters(recurse=False)

        # A parameter can be in both lists, and must be registered once.
        registered = {id(p): p for p in direct if p.requires_grad}
        for parameter in registered.values():
            deepspeed.zero.register_external_parameter(module, parameter)


def _stand_ins(tree: nn.Module) -> list[nn.Module]:
    """Return the empty modules of `trainable_tree`, which never run themselves."""
    return [module for module in tree.modules() if type(module) is nn.Module]

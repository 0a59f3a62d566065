"""Memory and arithmetic of a step, from the real loss on fake tensors: they have true shapes and
lifetimes, and nothing is computed.

No formula per tower is needed: checkpointing, frozen blocks, a teacher and any input size count as
they are.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class StepCost:
    """The cost of one micro-batch on one GPU.

    peak_bytes: largest size of all tensors alive at once, without weights and optimizer states, but
    with every gradient. peak_bytes_without_gradients: the same if each weight's gradient were freed
    as soon as it is complete. flops: of forward and backward; a multiplication and an addition
    count as two.
    """

    peak_bytes: int
    peak_bytes_without_gradients: int
    flops: int


def step_cost(
    loss: Callable[[Any], dict[str, Tensor]],
    make_batch: Callable[[], Any],
    parameters: Iterable[nn.Parameter],
    weights: Iterable[Tensor],
    *,
    autocast: torch.dtype | None = None,
    advance: Callable[[], object] | None = None,
) -> StepCost:
    """Return the cost of `loss(batch)["loss"].backward()`, text features known from an earlier
    step.

    Args:
        loss: of a task; it must not look at values of tensors on its way (`.item()`). Use the task
            for nothing else afterwards: what it caches is fake.
        make_batch: makes the batch from `torch.zeros` and similar functions; called under fake
            tensors.
        parameters: what trains.
        weights: all parameters and buffers, which exist before the step and are not counted.
        autocast: dtype of the arithmetic, None for the dtype of the weights.
        advance: called after each operation, to show that something happens.
    """
    parameters = list(parameters)
    live = LiveBytes(advance)
    flops = FlopCounterMode(display=False)
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    # Held in a variable, so that each fake weight keeps its storage to the end.
    fake_weights = [fake.from_tensor(tensor) for tensor in weights]
    live.ignore(fake_weights)
    _drop_gradients(parameters)
    hooks = [p.register_post_accumulate_grad_hook(live.give_away_gradient) for p in parameters]

    # The collections on the way look at what the step makes, and at nothing else.
    gc.collect()
    gc.freeze()
    arithmetic = torch.autocast(
        "cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None
    )
    with fake:
        with torch.no_grad():
            loss(make_batch())  # the earlier step
        with flops, live:
            batch = make_batch()
            with arithmetic:
                value = loss(batch)["loss"]
            value.backward()
    gc.unfreeze()

    for hook in hooks:
        hook.remove()
    _drop_gradients(parameters)
    return StepCost(live.peak, live.peak_without_gradients, flops.get_total_flops())


def _drop_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make under this mode.

    now: of those that are alive. peak: largest value of `now`. peak_without_gradients: the same if
    each weight's gradient were freed when it is complete. `advance` is called after each operation.
    """

    def __init__(self, advance: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.peak_without_gradients = 0
        self._given_away = 0
        self._sizes: dict[int, int] = {}
        self._advance = advance

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._meet(value.untyped_storage())
        if self._advance is not None:
            self._advance()
        return out

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Do not count the storages of `tensors`, which existed before."""
        self._sizes.update((tensor.untyped_storage()._cdata, 0) for tensor in tensors)

    def give_away_gradient(self, parameter: nn.Parameter) -> None:
        """Note a complete gradient, which stays alive to the end of the step. A hook."""
        assert parameter.grad is not None
        self._given_away += self._sizes.get(parameter.grad.untyped_storage()._cdata, 0)

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return

        self._sizes[key] = storage.nbytes()
        self.now += self._sizes[key]
        weakref.finalize(storage, self._forget, key)

        if self.now > self.peak or self.now - self._given_away > self.peak_without_gradients:
            # Recomputed activations hang in reference cycles that only fake tensors have.
            gc.collect()
            self.peak = max(self.peak, self.now)
            self.peak_without_gradients = max(
                self.peak_without_gradients, self.now - self._given_away
            )

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

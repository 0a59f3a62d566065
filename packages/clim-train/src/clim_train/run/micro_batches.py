"""The micro-batches of a run, on its device, and its place in the data."""

from collections.abc import Generator
from typing import Any

import torch

from clim_train.run.randomness import without_random
from clim_train.run.stopping import StopRequest
from clim_train.task import Loader
from clim_train.transfer import to_device


class MicroBatches:
    """Endless micro-batches of a loader, epoch after epoch, and the place of the last whole step.

    At the end of an epoch, batches that fill no accumulation are skipped. A step always has
    `accumulation` micro-batches, because the engine counts them, too.

    Args:
        loader: see `Loader`.
        accumulation: micro-batches of an optimizer step.
        device: where the batches go.
    """

    def __init__(self, loader: Loader, *, accumulation: int, device: torch.device) -> None:
        self.loader = loader
        self._accumulation = accumulation
        self._usable = len(loader) // accumulation * accumulation
        self._device = device
        self._samples = 0
        self._seen = 0  # of the current epoch
        self._batches = self._epochs()
        self.end_step()

    def next(self, request: StopRequest) -> Any:
        """Wait for the next micro-batch and return it on the device.

        Raises WaitEnded where none comes after the run was asked to stop.
        """
        with request.may_end_wait():
            return next(self._batches)

    def take_samples(self) -> int:
        """Return the number of samples in the micro-batches since the last call, of this rank.

        A batch without a length counts as one sample.
        """
        samples, self._samples = self._samples, 0
        return samples

    @property
    def fill_a_step(self) -> bool:
        """Return whether the micro-batches so far make whole optimizer steps."""
        return self._seen % self._accumulation == 0

    def end_step(self) -> None:
        """Note that an optimizer step has used all micro-batches so far."""
        self._place = {"micro_batches_seen": self._seen, "loader": self.loader.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last whole step, as JSON holds it."""
        return self._place

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place, before the first batch is taken."""
        # After the last batch of an epoch the loader already stands at the next epoch, of which
        # nothing has been seen.
        self._seen = state["micro_batches_seen"] % len(self.loader)
        self.loader.load_state_dict(state["loader"])
        self.end_step()

    def close(self) -> None:
        """End the loader's epoch, and with it its worker processes."""
        self._batches.close()

    def _epochs(self) -> Generator[Any, None, None]:
        while True:
            for batch in without_random(iter(self.loader)):
                if self._seen < self._usable:
                    self._seen += 1
                    self._samples += len(batch) if hasattr(batch, "__len__") else 1
                    yield to_device(batch, self._device)
            # A run that continues with another number of ranks may begin in the middle of an epoch
            # and end it within a step: the next epoch completes the step.
            self._seen %= self._accumulation

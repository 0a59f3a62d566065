import torch
from clim_train.run.finite import FiniteWatch
from clim_train.transfer import to_device


class Recorded:
    """Stands for a batch, and keeps what was asked of it; there is no GPU to copy to."""

    def __init__(self):
        self.asked = []

    def pin_memory(self):
        self.asked.append("pin_memory")
        return self

    def to(self, device, **options):
        self.asked.append((device.type, options))
        return self


class WithoutPinning:
    def to(self, device):
        return device.type


def test_a_batch_for_the_gpu_is_pinned_and_copied_without_waiting():
    batch = Recorded()
    assert to_device(batch, torch.device("cuda")) is batch
    assert batch.asked == ["pin_memory", ("cuda", {"non_blocking": True})]


def test_on_the_cpu_nothing_is_pinned():
    batch = Recorded()
    to_device(batch, torch.device("cpu"))
    assert batch.asked == [("cpu", {})]


def test_a_batch_that_cannot_be_pinned_is_copied_plainly():
    assert to_device(WithoutPinning(), torch.device("cuda")) == "cuda"


def test_a_tensor_on_a_gpu_is_not_pinned_again():
    batch = Recorded()
    batch.is_cuda = True
    assert to_device(batch, torch.device("cuda")) is batch
    assert batch.asked == [("cuda", {})]


def test_the_watch_for_losses_stays_on_the_device_of_the_loss():
    watch = FiniteWatch()
    for step in (1, 2):
        watch.add(step, torch.zeros((), device="meta"), {"keys": ["a"]})
    assert watch._first.device.type == "meta"

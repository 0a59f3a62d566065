"""Tiny towers for the training tests, on one thread: two only wait for each other on tensors this small."""

import pytest
import torch
from tiny_training import register_tiny_towers


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _tiny_towers():
    register_tiny_towers()

"""One thread for the harness.

The number of threads decides the order of sums, and so the last bits of a figure.
"""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

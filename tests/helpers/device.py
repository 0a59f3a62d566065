"""Where tests marked `device` run: on a CPU, or on what the environment variable CLIM_DEVICE names,
such as "cuda".

    CLIM_DEVICE=cuda pytest -m device

Tests import it as `from device import DEVICE` (pytest puts this folder on the path).
"""

import os

import torch

DEVICE = torch.device(os.environ.get("CLIM_DEVICE", "cpu"))

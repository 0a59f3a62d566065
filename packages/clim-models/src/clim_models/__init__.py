"""Any open_clip model with dense, box and mask features.

>>> import clim_models
>>> model = clim_models.create_model("ViT-B-16-quickgelu", pretrained="openai")  # doctest: +SKIP
"""

from .checkpoint import LoadReport, load_checkpoint
from .create import create_model
from .export import save_model
from .interpolation import interpolate_weights
from .pooling import pool_boxes, pool_masks
from .region_model import RegionModel
from .version import __version__

__all__ = [
    "LoadReport",
    "RegionModel",
    "__version__",
    "create_model",
    "interpolate_weights",
    "load_checkpoint",
    "pool_boxes",
    "pool_masks",
    "save_model",
]

"""Any open_clip model with dense, box and mask features. See README.md; names here are the API."""

from importlib import import_module

from clim_models.version import __version__

# Loaded on first use: open_clip, timm and torchvision take seconds to import.
_EXPORTS = {
    "LoadReport": "clim_models.checkpoints.load",
    "RegionModel": "clim_models.region_model",
    "UNetHead": "clim_models.heads.unet",
    "create_model": "clim_models.create",
    "interpolate_weights": "clim_models.checkpoints.interpolation",
    "load_checkpoint": "clim_models.checkpoints.load",
    "pool_boxes": "clim_models.pooling",
    "pool_masks": "clim_models.pooling",
    "save_model": "clim_models.export",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Any open_clip model with dense, box and mask features. See README.md; names here are the API."""

from importlib import import_module

from clim_models.version import __version__

# Loaded on first use: open_clip, timm and torchvision take seconds to import.
_EXPORTS = {
    "LoadReport": "checkpoint",
    "RegionModel": "region_model",
    "UNetHead": "unet_head",
    "create_model": "create",
    "interpolate_weights": "interpolation",
    "load_checkpoint": "checkpoint",
    "pool_boxes": "pooling",
    "pool_masks": "pooling",
    "save_model": "export",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__

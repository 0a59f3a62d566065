"""Shards, mosaics and readers for region training of CLIP. See README.md; names here are the API."""

from importlib import import_module

from clim_data.version import __version__

# Loaded on first use: torch and torchvision take seconds to import.
_EXPORTS = {
    "BrokenSample": "report",
    "CaptionSample": "captions",
    "Draw": "batches",
    "ImageCaptions": "captions",
    "InstanceRegions": "regions",
    "MosaicBatch": "mosaics",
    "MosaicConfig": "mosaics",
    "MosaicLoader": "loader",
    "MosaicPlan": "mosaics",
    "PanopticRegions": "regions",
    "RegionSample": "regions",
    "SkipReport": "report",
    "assemble_mosaics": "mosaics",
    "build_batch": "batches",
    "decode_rgb": "images",
    "plan_mosaics": "mosaics",
    "stitch_tiles": "mosaics",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__

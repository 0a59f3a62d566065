"""Shards, mosaics and readers for region training of CLIP. See README.md; names here are the API."""

from importlib import import_module

from clim_data.version import __version__

# Loaded on first use: torch and torchvision take seconds to import.
_EXPORTS = {
    "BoxBatch": "region_batches",
    "BoxLoader": "loader",
    "BrokenSample": "report",
    "CaptionSample": "captions",
    "CropBatch": "region_batches",
    "CropLoader": "loader",
    "Draw": "batches",
    "GroundingSample": "grounding",
    "ImageCaptions": "captions",
    "InstanceRegions": "regions",
    "MULTI_SCALES": "crops",
    "MosaicBatch": "mosaics",
    "MosaicConfig": "mosaics",
    "MosaicLoader": "loader",
    "MosaicPlan": "mosaics",
    "PackReport": "pack",
    "PanopticNarratives": "png",
    "PanopticRegions": "regions",
    "Phrase": "grounding",
    "ReferringExpressions": "refcoco",
    "RegionSample": "regions",
    "SkipReport": "report",
    "assemble_mosaics": "mosaics",
    "build_batch": "batches",
    "caption_items": "pack_items",
    "decode_rgb": "images",
    "diagnose": "doctor",
    "expression_items": "refcoco",
    "folder_items": "pack_items",
    "instance_items": "pack_items",
    "narrative_items": "png",
    "panoptic_items": "pack_items",
    "plan_mosaics": "mosaics",
    "register_part": "datasets",
    "stitch_tiles": "mosaics",
    "write_shards": "pack",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__

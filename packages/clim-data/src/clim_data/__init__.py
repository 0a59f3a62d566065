"""Shards, mosaics and readers for region training of CLIP. See README.md; names here are the
API."""

from importlib import import_module

from clim_data.version import __version__

# Loaded on first use: torch and torchvision take seconds to import.
_EXPORTS = {
    "BoxBatch": "clim_data.streams.region_batches",
    "BoxLoader": "clim_data.streams.loaders",
    "BrokenSample": "clim_data.faults",
    "CaptionSample": "clim_data.readers.image_captions",
    "CropBatch": "clim_data.streams.region_batches",
    "CropLoader": "clim_data.streams.loaders",
    "Draw": "clim_data.streams.draw",
    "GroundingSample": "clim_data.readers.grounding",
    "ImageCaptions": "clim_data.readers.image_captions",
    "InstanceRegions": "clim_data.readers.regions",
    "MULTI_SCALES": "clim_data.pixels.crops",
    "MosaicBatch": "clim_data.streams.mosaics",
    "MosaicConfig": "clim_data.streams.mosaics",
    "MosaicLoader": "clim_data.streams.loaders",
    "MosaicPlan": "clim_data.streams.mosaics",
    "PackReport": "clim_data.sources.write",
    "PanopticNarratives": "clim_data.readers.narratives",
    "PanopticRegions": "clim_data.readers.regions",
    "Phrase": "clim_data.readers.grounding",
    "ReferringExpressions": "clim_data.readers.expressions",
    "RegionSample": "clim_data.readers.regions",
    "SkipReport": "clim_data.faults",
    "assemble_mosaics": "clim_data.streams.mosaics",
    "build_batch": "clim_data.streams.mosaic_batches",
    "caption_items": "clim_data.sources.items",
    "decode_rgb": "clim_data.pixels.decode",
    "diagnose": "clim_data.doctor",
    "expression_items": "clim_data.readers.expressions",
    "folder_items": "clim_data.sources.items",
    "instance_items": "clim_data.sources.items",
    "narrative_items": "clim_data.readers.narratives",
    "panoptic_items": "clim_data.sources.items",
    "plan_mosaics": "clim_data.streams.mosaics",
    "register_part": "clim_data.datasets",
    "stitch_tiles": "clim_data.streams.mosaics",
    "write_shards": "clim_data.sources.write",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Shards, mosaics, crops and readers for region training of CLIP.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names
from clim_data.version import __version__ as __version__

if TYPE_CHECKING:
    from clim_data.datasets import (
        DATASETS as DATASETS,
        Dataset as Dataset,
        DatasetCheck as DatasetCheck,
    )
    from clim_data.derive.ov_split import COCO_BASE as COCO_BASE, COCO_NOVEL as COCO_NOVEL
    from clim_data.doctor import diagnose as diagnose
    from clim_data.faults import (
        BrokenSample as BrokenSample,
        SampleWarning as SampleWarning,
        SkipReport as SkipReport,
    )
    from clim_data.pixels.crops import MULTI_SCALES as MULTI_SCALES
    from clim_data.pixels.decode import decode_rgb as decode_rgb
    from clim_data.readers.entities import FlickrEntities as FlickrEntities
    from clim_data.readers.expression_items import expression_items as expression_items
    from clim_data.readers.expressions import ReferringExpressions as ReferringExpressions
    from clim_data.readers.grounding import GroundingSample as GroundingSample, Phrase as Phrase
    from clim_data.readers.image_captions import (
        CaptionSample as CaptionSample,
        ImageCaptions as ImageCaptions,
    )
    from clim_data.readers.narratives import (
        PanopticNarratives as PanopticNarratives,
        narrative_items as narrative_items,
    )
    from clim_data.readers.reasonseg import ReasoningSegmentation as ReasoningSegmentation
    from clim_data.readers.region_samples import RegionSample as RegionSample
    from clim_data.readers.regions import (
        InstanceRegions as InstanceRegions,
        PanopticRegions as PanopticRegions,
    )
    from clim_data.sources.items import (
        caption_items as caption_items,
        folder_items as folder_items,
        instance_items as instance_items,
        panoptic_items as panoptic_items,
    )
    from clim_data.sources.write import PackReport as PackReport, write_shards as write_shards
    from clim_data.streams.detection_batches import (
        DetectionBatch as DetectionBatch,
        DetectionLoader as DetectionLoader,
    )
    from clim_data.streams.draw import SampleRandom as SampleRandom
    from clim_data.streams.loaders import (
        BoxLoader as BoxLoader,
        CropLoader as CropLoader,
        MosaicLoader as MosaicLoader,
    )
    from clim_data.streams.mosaic_batches import build_batch as build_batch
    from clim_data.streams.mosaics import (
        MosaicBatch as MosaicBatch,
        MosaicConfig as MosaicConfig,
        MosaicPlan as MosaicPlan,
        assemble_mosaics as assemble_mosaics,
        plan_mosaics as plan_mosaics,
        stitch_tiles as stitch_tiles,
    )
    from clim_data.streams.region_batches import BoxBatch as BoxBatch, CropBatch as CropBatch
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BoxBatch": "clim_data.streams.region_batches",
            "BoxLoader": "clim_data.streams.loaders",
            "BrokenSample": "clim_data.faults",
            "COCO_BASE": "clim_data.derive.ov_split",
            "COCO_NOVEL": "clim_data.derive.ov_split",
            "CaptionSample": "clim_data.readers.image_captions",
            "CropBatch": "clim_data.streams.region_batches",
            "CropLoader": "clim_data.streams.loaders",
            "DATASETS": "clim_data.datasets",
            "Dataset": "clim_data.datasets",
            "DatasetCheck": "clim_data.datasets",
            "DetectionBatch": "clim_data.streams.detection_batches",
            "DetectionLoader": "clim_data.streams.detection_batches",
            "FlickrEntities": "clim_data.readers.entities",
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
            "ReasoningSegmentation": "clim_data.readers.reasonseg",
            "ReferringExpressions": "clim_data.readers.expressions",
            "RegionSample": "clim_data.readers.region_samples",
            "SampleRandom": "clim_data.streams.draw",
            "SampleWarning": "clim_data.faults",
            "SkipReport": "clim_data.faults",
            "assemble_mosaics": "clim_data.streams.mosaics",
            "build_batch": "clim_data.streams.mosaic_batches",
            "caption_items": "clim_data.sources.items",
            "decode_rgb": "clim_data.pixels.decode",
            "diagnose": "clim_data.doctor",
            "expression_items": "clim_data.readers.expression_items",
            "folder_items": "clim_data.sources.items",
            "instance_items": "clim_data.sources.items",
            "narrative_items": "clim_data.readers.narratives",
            "panoptic_items": "clim_data.sources.items",
            "plan_mosaics": "clim_data.streams.mosaics",
            "stitch_tiles": "clim_data.streams.mosaics",
            "write_shards": "clim_data.sources.write",
        },
        renamed={"Draw": "SampleRandom"},
    )

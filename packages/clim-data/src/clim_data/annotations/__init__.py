"""Official annotation files, read and checked.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.annotations.caption_files import captions_of_images as captions_of_images
    from clim_data.annotations.coco import read_annotations as read_annotations
    from clim_data.annotations.panoptic import PanopticRecords as PanopticRecords
    from clim_data.annotations.records import BoxRecord as BoxRecord, CocoRecords as CocoRecords
    from clim_data.annotations.tables import read_categories as read_categories
    from clim_data.annotations.visual_cot import (
        VisualCotRecord as VisualCotRecord,
        VisualCotRecords as VisualCotRecords,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BoxRecord": "clim_data.annotations.records",
            "CocoRecords": "clim_data.annotations.records",
            "PanopticRecords": "clim_data.annotations.panoptic",
            "VisualCotRecord": "clim_data.annotations.visual_cot",
            "VisualCotRecords": "clim_data.annotations.visual_cot",
            "captions_of_images": "clim_data.annotations.caption_files",
            "read_annotations": "clim_data.annotations.coco",
            "read_categories": "clim_data.annotations.tables",
        },
    )

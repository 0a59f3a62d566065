"""Where a record of an annotation file meets a sample of a source.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.matching.box_json import BoxRules as BoxRules
    from clim_data.matching.boxes import BoxTable as BoxTable, load_boxes as load_boxes
    from clim_data.matching.captions import CaptionTable as CaptionTable
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BoxRules": "clim_data.matching.box_json",
            "BoxTable": "clim_data.matching.boxes",
            "CaptionTable": "clim_data.matching.captions",
            "load_boxes": "clim_data.matching.boxes",
        },
    )

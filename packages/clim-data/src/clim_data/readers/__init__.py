"""Data sets for evaluation and grounding, one module for each kind of annotation.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.readers.annotated_images import (
        AnnotatedImages as AnnotatedImages,
        OpenedImage as OpenedImage,
    )
    from clim_data.readers.expressions import (
        PROTOCOLS as PROTOCOLS,
        ExpressionRules as ExpressionRules,
    )
    from clim_data.readers.grounding import PanopticMasks as PanopticMasks
    from clim_data.readers.labelled_images import class_images as class_images
    from clim_data.readers.region_options import (
        RegionRules as RegionRules,
        RegionView as RegionView,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "AnnotatedImages": "clim_data.readers.annotated_images",
            "ExpressionRules": "clim_data.readers.expressions",
            "OpenedImage": "clim_data.readers.annotated_images",
            "PROTOCOLS": "clim_data.readers.expressions",
            "PanopticMasks": "clim_data.readers.grounding",
            "RegionRules": "clim_data.readers.region_options",
            "RegionView": "clim_data.readers.region_options",
            "class_images": "clim_data.readers.labelled_images",
        },
    )

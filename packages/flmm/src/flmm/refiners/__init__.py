"""From coarse masks to fine ones.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.refiners.embedding import (
        ImageEmbedding as ImageEmbedding,
    )
    from flmm.refiners.refiner import (
        RefinedMasks as RefinedMasks,
        Refiner as Refiner,
    )
    from flmm.refiners.sam.geometry import (
        ResizedImage as ResizedImage,
        resized_size as resized_size,
    )
    from flmm.refiners.sam.refiner import (
        SamRefiner as SamRefiner,
    )
    from flmm.refiners.sam.weights import (
        load_sam as load_sam,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "ImageEmbedding": "flmm.refiners.embedding",
            "RefinedMasks": "flmm.refiners.refiner",
            "Refiner": "flmm.refiners.refiner",
            "ResizedImage": "flmm.refiners.sam.geometry",
            "SamRefiner": "flmm.refiners.sam.refiner",
            "load_sam": "flmm.refiners.sam.weights",
            "resized_size": "flmm.refiners.sam.geometry",
        },
    )

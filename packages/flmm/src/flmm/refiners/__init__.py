"""From coarse masks to fine ones.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.refiners.coarse_only import (
        CoarseOnly as CoarseOnly,
    )
    from flmm.refiners.embedding import (
        ImageEmbedding as ImageEmbedding,
    )
    from flmm.refiners.encoder import (
        ImageEncoder as ImageEncoder,
    )
    from flmm.refiners.refiner import (
        RefinedMasks as RefinedMasks,
        Refiner as Refiner,
        TrainableRefiner as TrainableRefiner,
    )
    from flmm.refiners.sam.load import (
        load_refiner as load_refiner,
    )
    from flmm.refiners.sam.refiner import (
        SamRefiner as SamRefiner,
    )
    from flmm.refiners.sam.weights import (
        load_sam as load_sam,
    )
    from flmm.refiners.square import (
        ResizedImage as ResizedImage,
        Square as Square,
        resized_size as resized_size,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CoarseOnly": "flmm.refiners.coarse_only",
            "ImageEmbedding": "flmm.refiners.embedding",
            "ImageEncoder": "flmm.refiners.encoder",
            "RefinedMasks": "flmm.refiners.refiner",
            "Refiner": "flmm.refiners.refiner",
            "ResizedImage": "flmm.refiners.square",
            "SamRefiner": "flmm.refiners.sam.refiner",
            "Square": "flmm.refiners.square",
            "TrainableRefiner": "flmm.refiners.refiner",
            "load_refiner": "flmm.refiners.sam.load",
            "load_sam": "flmm.refiners.sam.weights",
            "resized_size": "flmm.refiners.square",
        },
    )

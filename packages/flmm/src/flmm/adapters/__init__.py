"""Frozen LMMs: their families, and how images become their pixels and tokens.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.adapters.family import Family as Family
    from flmm.adapters.layout import (
        ImageLayout as ImageLayout,
        grid_of_tokens as grid_of_tokens,
        single_grid as single_grid,
        tiled_grid as tiled_grid,
        unpadded_size as unpadded_size,
        with_newlines as with_newlines,
    )
    from flmm.adapters.preparers import (
        AnyResolutionTiles as AnyResolutionTiles,
        HybridSquare as HybridSquare,
        PadToSquare as PadToSquare,
    )
    from flmm.adapters.registry import (
        build_lmm as build_lmm,
        load_lmm as load_lmm,
        register_family as register_family,
        supported_families as supported_families,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "AnyResolutionTiles": "flmm.adapters.preparers",
            "Family": "flmm.adapters.family",
            "HybridSquare": "flmm.adapters.preparers",
            "ImageLayout": "flmm.adapters.layout",
            "PadToSquare": "flmm.adapters.preparers",
            "build_lmm": "flmm.adapters.registry",
            "grid_of_tokens": "flmm.adapters.layout",
            "load_lmm": "flmm.adapters.registry",
            "register_family": "flmm.adapters.registry",
            "single_grid": "flmm.adapters.layout",
            "supported_families": "flmm.adapters.registry",
            "tiled_grid": "flmm.adapters.layout",
            "unpadded_size": "flmm.adapters.layout",
            "with_newlines": "flmm.adapters.layout",
        },
    )

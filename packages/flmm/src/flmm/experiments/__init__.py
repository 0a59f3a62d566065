"""How the demo models are made, and the quick start; the core never imports them.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.experiments.heads import (
        build_grounded as build_grounded,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "build_grounded": "flmm.experiments.heads",
        },
    )

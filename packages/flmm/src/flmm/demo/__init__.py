"""A tiny LMM that captions composed scenes, so that grounding can be tried, tested and shown
without any download.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.demo.sam import (
        build_demo_sam as build_demo_sam,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "build_demo_sam": "flmm.demo.sam",
        },
    )

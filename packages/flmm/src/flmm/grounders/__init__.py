"""From an image and phrases to masks.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.grounders.heads import (
        phrase_features as phrase_features,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "phrase_features": "flmm.grounders.heads",
        },
    )

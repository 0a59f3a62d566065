"""Names for boxes that have none: pseudo labels.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.labelling.nouns import NounFinder as NounFinder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "NounFinder": "clim_eval.labelling.nouns",
        },
    )

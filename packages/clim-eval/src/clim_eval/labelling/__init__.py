"""Names for boxes that have none: pseudo labels.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.labelling.nouns import NounFinder as NounFinder
    from clim_eval.labelling.options import PseudoLabelOptions as PseudoLabelOptions
    from clim_eval.labelling.run import pseudo_label as pseudo_label
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "NounFinder": "clim_eval.labelling.nouns",
            "PseudoLabelOptions": "clim_eval.labelling.options",
            "pseudo_label": "clim_eval.labelling.run",
        },
    )

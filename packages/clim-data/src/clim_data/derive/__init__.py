"""Files that are made from images and official annotations: proposals, nouns, class splits.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.derive.proposals import (
        ProposalJob as ProposalJob,
        find_proposals as find_proposals,
    )
    from clim_data.derive.selective_search import SelectiveSearch as SelectiveSearch
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "ProposalJob": "clim_data.derive.proposals",
            "SelectiveSearch": "clim_data.derive.selective_search",
            "find_proposals": "clim_data.derive.proposals",
        },
    )

"""Demonstrations and comparisons that use the core; the core never imports them.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.experiments.console import (
        Stages as Stages,
        aligned_table as aligned_table,
        free_folder as free_folder,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Stages": "clim_train.experiments.console",
            "aligned_table": "clim_train.experiments.console",
            "free_folder": "clim_train.experiments.console",
        },
    )

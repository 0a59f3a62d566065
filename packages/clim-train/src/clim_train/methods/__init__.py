"""Training methods: each has options, a kind of data, and a task.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.methods.method import (
        SMALL_BATCHES as SMALL_BATCHES,
        BuildContext as BuildContext,
        DataKind as DataKind,
        Method as Method,
        MethodOptions as MethodOptions,
    )
    from clim_train.methods.region_parts import rows_per_rank as rows_per_rank
    from clim_train.methods.sources import SourceOptions as SourceOptions
    from clim_train.methods.table import (
        METHODS as METHODS,
        find_method as find_method,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BuildContext": "clim_train.methods.method",
            "DataKind": "clim_train.methods.method",
            "METHODS": "clim_train.methods.table",
            "Method": "clim_train.methods.method",
            "MethodOptions": "clim_train.methods.method",
            "SMALL_BATCHES": "clim_train.methods.method",
            "SourceOptions": "clim_train.methods.sources",
            "find_method": "clim_train.methods.table",
            "rows_per_rank": "clim_train.methods.region_parts",
        },
    )

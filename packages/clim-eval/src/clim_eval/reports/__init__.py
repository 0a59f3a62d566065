"""Reports: one format, its tables, and where the numbers come from.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.reports.coverage import Coverage as Coverage, check_scored as check_scored
    from clim_eval.reports.tables import markdown as markdown, to_jsonable as to_jsonable
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Coverage": "clim_eval.reports.coverage",
            "check_scored": "clim_eval.reports.coverage",
            "markdown": "clim_eval.reports.tables",
            "to_jsonable": "clim_eval.reports.tables",
        },
        renamed={"plain": "to_jsonable"},
    )

"""Reports: one format, its tables, and where the numbers come from.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.reports.tables import markdown as markdown, plain as plain
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "markdown": "clim_eval.reports.tables",
            "plain": "clim_eval.reports.tables",
        },
    )

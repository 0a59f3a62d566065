"""The command line `clim-train`, and what `flmm train` shares with it.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.commands.parser import configure as configure
    from clim_train.commands.runs import (
        RunProgram as RunProgram,
        exit_status as exit_status,
        start_engine as start_engine,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "RunProgram": "clim_train.commands.runs",
            "configure": "clim_train.commands.parser",
            "exit_status": "clim_train.commands.runs",
            "start_engine": "clim_train.commands.runs",
        },
    )

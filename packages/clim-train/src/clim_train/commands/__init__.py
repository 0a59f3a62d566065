"""The command line `clim-train`, and what `flmm train` shares with it.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.commands.choices import (
        Machine as Machine,
        fit_length as fit_length,
        fit_workers as fit_workers,
    )
    from clim_train.commands.given import (
        given_options as given_options,
        with_given_length as with_given_length,
    )
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
            "Machine": "clim_train.commands.choices",
            "RunProgram": "clim_train.commands.runs",
            "configure": "clim_train.commands.parser",
            "exit_status": "clim_train.commands.runs",
            "fit_length": "clim_train.commands.choices",
            "fit_workers": "clim_train.commands.choices",
            "given_options": "clim_train.commands.given",
            "start_engine": "clim_train.commands.runs",
            "with_given_length": "clim_train.commands.given",
        },
    )

"""The command line `clim-train`, and what `flmm train` shares with it.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.commands.parser import configure as configure
    from clim_train.commands.runs import (
        check_sources_are_plain as check_sources_are_plain,
        convert_run as convert_run,
        exit_status as exit_status,
        export_run as export_run,
        newest_checkpoint as newest_checkpoint,
        resumed_config as resumed_config,
        run_and_trust as run_and_trust,
        train_run as train_run,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "check_sources_are_plain": "clim_train.commands.runs",
            "configure": "clim_train.commands.parser",
            "convert_run": "clim_train.commands.runs",
            "exit_status": "clim_train.commands.runs",
            "export_run": "clim_train.commands.runs",
            "newest_checkpoint": "clim_train.commands.runs",
            "resumed_config": "clim_train.commands.runs",
            "run_and_trust": "clim_train.commands.runs",
            "train_run": "clim_train.commands.runs",
        },
    )

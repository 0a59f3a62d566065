"""The options of a run as frozen dataclasses, their checks, and their JSON files.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.options.checks import (
        check_at_least as check_at_least,
        check_choice as check_choice,
        check_default as check_default,
        reject as reject,
    )
    from clim_train.options.device import choose_device as choose_device
    from clim_train.options.json_files import JsonConfig as JsonConfig
    from clim_train.options.paths import (
        OUTPUT as OUTPUT,
        PATH as PATH,
        PATH_OR_NAME as PATH_OR_NAME,
        with_absolute_paths as with_absolute_paths,
    )
    from clim_train.options.run_options import (
        BatchOptions as BatchOptions,
        RunOptions as RunOptions,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BatchOptions": "clim_train.options.run_options",
            "JsonConfig": "clim_train.options.json_files",
            "OUTPUT": "clim_train.options.paths",
            "PATH": "clim_train.options.paths",
            "PATH_OR_NAME": "clim_train.options.paths",
            "RunOptions": "clim_train.options.run_options",
            "check_at_least": "clim_train.options.checks",
            "check_choice": "clim_train.options.checks",
            "check_default": "clim_train.options.checks",
            "choose_device": "clim_train.options.device",
            "reject": "clim_train.options.checks",
            "with_absolute_paths": "clim_train.options.paths",
        },
    )

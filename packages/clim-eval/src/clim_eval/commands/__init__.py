"""The command line `clim-eval`: one module for each command.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.commands.main import (
        build_parser as build_parser,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "build_parser": "clim_eval.commands.main",
        },
    )

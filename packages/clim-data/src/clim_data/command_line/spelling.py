"""The form in which the user types our programs."""

import os
import shutil
import sys
from pathlib import Path


def typed(program: str) -> str:
    """Return a program's name in a form that works in the shell in which this process was started.

    For example `clim-eval`, `hatch run clim-eval` within `hatch run`, and `python -m clim_eval`
    where this process was started as a module, or the console script is not on the path.

    Args:
        program: name of one of our console scripts.
    """
    # Where the user typed `python -m clim_train`, the first argument is the path of that module.
    as_module = Path(sys.argv[0]).name == "__main__.py"
    if as_module or shutil.which(program) is None:
        form = f"python -m {program.replace('-', '_')}"
    else:
        form = program
    return f"hatch run {form}" if "HATCH_ENV_ACTIVE" in os.environ else form

"""`python -m clim_train.compare` is `clim_train.experiments.comparison.command`."""

import sys

from clim_data.command_line import run_command

from clim_train.commands.runs import STATUSES
from clim_train.experiments.comparison.command import main

if __name__ == "__main__":
    sys.exit(run_command("clim_train.compare", main, statuses=STATUSES))

"""`python -m clim_train.quickstart` is `clim_train.experiments.comparison.quickstart_command`."""

import sys

from clim_data.command_line import run_command

from clim_train.commands.runs import STATUSES
from clim_train.experiments.comparison.quickstart_command import main

if __name__ == "__main__":
    sys.exit(run_command("clim_train.quickstart", main, statuses=STATUSES))

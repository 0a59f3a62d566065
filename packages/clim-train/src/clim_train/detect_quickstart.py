"""`python -m clim_train.detect_quickstart` is `clim_train.experiments.detection.quickstart`."""

import sys

from clim_data.command_line import run_command

from clim_train.commands.runs import STATUSES
from clim_train.experiments.detection.quickstart import main

if __name__ == "__main__":
    sys.exit(run_command("clim_train.detect_quickstart", main, statuses=STATUSES))

"""`python -m clim_train` and `deepspeed --module clim_train`."""

import sys

from clim_train.cli import main

sys.exit(main())

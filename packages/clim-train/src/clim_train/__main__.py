"""`python -m clim_train` and `deepspeed --module clim_train`."""

import sys

from clim_train.commands.main import main

sys.exit(main())

"""`python -m clim_data` and `deepspeed --module clim_data`."""

import sys

from clim_data.commands.main import main

sys.exit(main())

"""`python -m flmm` and `deepspeed --module flmm`."""

import sys

from flmm.commands.main import main

sys.exit(main())

"""`python -m flmm` and `deepspeed --module flmm`."""

import sys

from flmm.cli import main

sys.exit(main())

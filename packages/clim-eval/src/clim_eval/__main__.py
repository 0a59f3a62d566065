"""``python -m clim_eval`` is ``clim-eval``."""

from clim_eval.cli import main

raise SystemExit(main())

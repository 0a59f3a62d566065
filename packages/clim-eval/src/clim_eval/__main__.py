"""``python -m clim_eval`` is ``clim-eval``."""

from clim_eval.commands.main import main

raise SystemExit(main())

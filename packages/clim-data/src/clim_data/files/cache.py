"""Where this project keeps files that it can make or fetch again."""

import os
from pathlib import Path


def default_cache_folder() -> Path:
    """Return `CLIM_DATA_CACHE`, or clim-data in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clim-data"
    return Path(os.environ.get("CLIM_DATA_CACHE", fallback))

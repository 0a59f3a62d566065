"""Several processes at one job: ranks, parts of a job, worker processes.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.processes.launcher import watch_launcher as watch_launcher
    from clim_data.processes.part_work import do_parts as do_parts
    from clim_data.processes.parts import PartJob as PartJob
    from clim_data.processes.ranks import (
        Ranks as Ranks,
        from_first_rank as from_first_rank,
        gather_objects as gather_objects,
        local_device as local_device,
    )
    from clim_data.processes.workers import load_in_workers as load_in_workers
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "PartJob": "clim_data.processes.parts",
            "Ranks": "clim_data.processes.ranks",
            "do_parts": "clim_data.processes.part_work",
            "from_first_rank": "clim_data.processes.ranks",
            "gather_objects": "clim_data.processes.ranks",
            "load_in_workers": "clim_data.processes.workers",
            "local_device": "clim_data.processes.ranks",
            "watch_launcher": "clim_data.processes.launcher",
        },
    )

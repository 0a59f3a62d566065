"""Where samples lie: shards and folders, on this machine or remote, read and written.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.sources.captions import read_captions as read_captions
    from clim_data.sources.sample_names import names_of_samples as names_of_samples
    from clim_data.sources.shards import RawSample as RawSample
    from clim_data.sources.store import SampleStore as SampleStore
    from clim_data.sources.walk import image_files as image_files, walk_folder as walk_folder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "RawSample": "clim_data.sources.shards",
            "SampleStore": "clim_data.sources.store",
            "image_files": "clim_data.sources.walk",
            "names_of_samples": "clim_data.sources.sample_names",
            "read_captions": "clim_data.sources.captions",
            "walk_folder": "clim_data.sources.walk",
        },
    )

"""Trained models on the Hugging Face hub, in the layout that plain open_clip loads, and back.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.hub.download import fetch_folder as fetch_folder
    from clim_models.hub.upload import HubClient as HubClient, upload_folder as upload_folder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "HubClient": "clim_models.hub.upload",
            "fetch_folder": "clim_models.hub.download",
            "upload_folder": "clim_models.hub.upload",
        },
    )

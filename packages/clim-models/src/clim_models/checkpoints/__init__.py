"""Weights: files, layouts, interpolation, fingerprints.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.checkpoints.fingerprint import hash_weights as hash_weights
    from clim_models.checkpoints.layouts import (
        to_open_clip as to_open_clip,
        to_unet_head as to_unet_head,
        unwrap as unwrap,
    )
    from clim_models.checkpoints.load import (
        check_archive as check_archive,
        export_folder as export_folder,
        read_checkpoint as read_checkpoint,
    )
    from clim_models.checkpoints.tensor_files import (
        check_values as check_values,
        checksum as checksum,
        read_metadata as read_metadata,
        read_tensors as read_tensors,
        save_tensors as save_tensors,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "check_archive": "clim_models.checkpoints.load",
            "check_values": "clim_models.checkpoints.tensor_files",
            "checksum": "clim_models.checkpoints.tensor_files",
            "export_folder": "clim_models.checkpoints.load",
            "hash_weights": "clim_models.checkpoints.fingerprint",
            "read_checkpoint": "clim_models.checkpoints.load",
            "read_metadata": "clim_models.checkpoints.tensor_files",
            "read_tensors": "clim_models.checkpoints.tensor_files",
            "save_tensors": "clim_models.checkpoints.tensor_files",
            "to_open_clip": "clim_models.checkpoints.layouts",
            "to_unet_head": "clim_models.checkpoints.layouts",
            "unwrap": "clim_models.checkpoints.layouts",
        },
    )

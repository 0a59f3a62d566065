"""Official annotation files, read and checked.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.annotations.caption_files import captions_of_images as captions_of_images
    from clim_data.annotations.coco import read_annotations as read_annotations
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "captions_of_images": "clim_data.annotations.caption_files",
            "read_annotations": "clim_data.annotations.coco",
        },
    )

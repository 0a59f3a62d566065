"""Files of every kind: written whole, named in one way, read as text, JSON or plain pickles.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.files.atomic import (
        flush as flush,
        remove_stale_drafts as remove_stale_drafts,
        replace_file as replace_file,
        write_bytes as write_bytes,
        write_json as write_json,
        write_text as write_text,
        write_whole as write_whole,
    )
    from clim_data.files.cache import default_cache_folder as default_cache_folder
    from clim_data.files.identity import (
        SampleName as SampleName,
        SampleNames as SampleNames,
    )
    from clim_data.files.json_stream import stream_json as stream_json
    from clim_data.files.names import (
        IMAGE_SUFFIXES as IMAGE_SUFFIXES,
        image_file_name as image_file_name,
        is_image as is_image,
    )
    from clim_data.files.outputs import check_output_folder as check_output_folder
    from clim_data.files.text import (
        read_lines as read_lines,
        read_names as read_names,
        read_text as read_text,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "IMAGE_SUFFIXES": "clim_data.files.names",
            "SampleName": "clim_data.files.identity",
            "SampleNames": "clim_data.files.identity",
            "check_output_folder": "clim_data.files.outputs",
            "default_cache_folder": "clim_data.files.cache",
            "flush": "clim_data.files.atomic",
            "image_file_name": "clim_data.files.names",
            "is_image": "clim_data.files.names",
            "read_lines": "clim_data.files.text",
            "read_names": "clim_data.files.text",
            "read_text": "clim_data.files.text",
            "remove_stale_drafts": "clim_data.files.atomic",
            "replace_file": "clim_data.files.atomic",
            "stream_json": "clim_data.files.json_stream",
            "write_bytes": "clim_data.files.atomic",
            "write_json": "clim_data.files.atomic",
            "write_text": "clim_data.files.atomic",
            "write_whole": "clim_data.files.atomic",
        },
    )

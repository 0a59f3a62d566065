"""Figures: similarity maps, bars and trade-offs.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.pictures.detections import detection_figure as detection_figure
    from clim_eval.pictures.example import EXAMPLE_FOLDER as EXAMPLE_FOLDER
    from clim_eval.pictures.files import (
        write_figure as write_figure,
        write_png as write_png,
    )
    from clim_eval.pictures.maps import (
        Scale as Scale,
        draw_map as draw_map,
        hue as hue,
    )
    from clim_eval.pictures.named_boxes import NamedBoxes as NamedBoxes
    from clim_eval.pictures.scenes import (
        SceneRow as SceneRow,
        SceneView as SceneView,
        named_boxes_figure as named_boxes_figure,
        scenes_figure as scenes_figure,
    )
    from clim_eval.pictures.style import (
        INK as INK,
        PALETTE as PALETTE,
        SIDE as SIDE,
        STYLE as STYLE,
    )
    from clim_eval.pictures.texts import (
        can_draw as can_draw,
        readable_on as readable_on,
        text_options as text_options,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "EXAMPLE_FOLDER": "clim_eval.pictures.example",
            "INK": "clim_eval.pictures.style",
            "NamedBoxes": "clim_eval.pictures.named_boxes",
            "PALETTE": "clim_eval.pictures.style",
            "SIDE": "clim_eval.pictures.style",
            "STYLE": "clim_eval.pictures.style",
            "Scale": "clim_eval.pictures.maps",
            "SceneRow": "clim_eval.pictures.scenes",
            "SceneView": "clim_eval.pictures.scenes",
            "can_draw": "clim_eval.pictures.texts",
            "detection_figure": "clim_eval.pictures.detections",
            "draw_map": "clim_eval.pictures.maps",
            "hue": "clim_eval.pictures.maps",
            "named_boxes_figure": "clim_eval.pictures.scenes",
            "readable_on": "clim_eval.pictures.texts",
            "scenes_figure": "clim_eval.pictures.scenes",
            "text_options": "clim_eval.pictures.texts",
            "write_figure": "clim_eval.pictures.files",
            "write_png": "clim_eval.pictures.files",
        },
    )

"""Pixels, boxes and masks: decoding and geometry.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.pixels.boxes import (
        box_of_mask as box_of_mask,
        boxes_of_masks as boxes_of_masks,
        padded_boxes as padded_boxes,
        xywh_to_xyxy as xywh_to_xyxy,
        xyxy_to_xywh as xyxy_to_xywh,
    )
    from clim_data.pixels.crops import (
        crop_window as crop_window,
        cut_crops as cut_crops,
        draw_cells as draw_cells,
        draw_order as draw_order,
        enough_pixels as enough_pixels,
        grid_choices as grid_choices,
    )
    from clim_data.pixels.decode import (
        FORMATS as FORMATS,
        load_rgb as load_rgb,
        open_image as open_image,
        orientation as orientation,
        oriented_size as oriented_size,
        pixels as pixels,
        to_rgb as to_rgb,
    )
    from clim_data.pixels.jitter import JitterDraw as JitterDraw
    from clim_data.pixels.masks import encode_mask as encode_mask
    from clim_data.pixels.run_texts import check_run_texts as check_run_texts
    from clim_data.pixels.segmentations import (
        check_segmentation as check_segmentation,
        decode_segmentation as decode_segmentation,
    )
    from clim_data.pixels.transforms import (
        center_crop as center_crop,
        letterbox as letterbox,
        sample_crop_window as sample_crop_window,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "FORMATS": "clim_data.pixels.decode",
            "JitterDraw": "clim_data.pixels.jitter",
            "box_of_mask": "clim_data.pixels.boxes",
            "boxes_of_masks": "clim_data.pixels.boxes",
            "center_crop": "clim_data.pixels.transforms",
            "check_run_texts": "clim_data.pixels.run_texts",
            "check_segmentation": "clim_data.pixels.segmentations",
            "crop_window": "clim_data.pixels.crops",
            "cut_crops": "clim_data.pixels.crops",
            "decode_segmentation": "clim_data.pixels.segmentations",
            "draw_cells": "clim_data.pixels.crops",
            "draw_order": "clim_data.pixels.crops",
            "encode_mask": "clim_data.pixels.masks",
            "enough_pixels": "clim_data.pixels.crops",
            "grid_choices": "clim_data.pixels.crops",
            "letterbox": "clim_data.pixels.transforms",
            "load_rgb": "clim_data.pixels.decode",
            "open_image": "clim_data.pixels.decode",
            "orientation": "clim_data.pixels.decode",
            "oriented_size": "clim_data.pixels.decode",
            "padded_boxes": "clim_data.pixels.boxes",
            "pixels": "clim_data.pixels.decode",
            "sample_crop_window": "clim_data.pixels.transforms",
            "to_rgb": "clim_data.pixels.decode",
            "xywh_to_xyxy": "clim_data.pixels.boxes",
            "xyxy_to_xywh": "clim_data.pixels.boxes",
        },
    )

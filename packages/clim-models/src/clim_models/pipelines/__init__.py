"""Pictures in, names, boxes and maps out: `pipeline` makes what takes pictures.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.pipelines.detection import DetectionPipeline as DetectionPipeline
    from clim_models.pipelines.options import PipelineOptions as PipelineOptions
    from clim_models.pipelines.peaks import find_peaks as find_peaks
    from clim_models.pipelines.pictures import (
        Source as Source,
        is_url as is_url,
        name_of_picture as name_of_picture,
        read_picture as read_picture,
    )
    from clim_models.pipelines.reading import (
        ReadPicture as ReadPicture,
        fitted_to_patches as fitted_to_patches,
        in_lists as in_lists,
        is_one as is_one,
        read_ahead as read_ahead,
        read_whole as read_whole,
    )
    from clim_models.pipelines.region import RegionResult as RegionResult
    from clim_models.pipelines.regions import (
        DensePipeline as DensePipeline,
        RegionPipeline as RegionPipeline,
    )
    from clim_models.pipelines.results import (
        DenseResult as DenseResult,
        PictureResult as PictureResult,
        coco_of_results as coco_of_results,
    )
    from clim_models.pipelines.skipping import (
        PictureList as PictureList,
        check_on_error as check_on_error,
    )
    from clim_models.pipelines.tasks import pipeline as pipeline
    from clim_models.pipelines.writing import (
        picture_format as picture_format,
        picture_path as picture_path,
        write_picture as write_picture,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "DensePipeline": "clim_models.pipelines.regions",
            "DenseResult": "clim_models.pipelines.results",
            "DetectionPipeline": "clim_models.pipelines.detection",
            "PictureList": "clim_models.pipelines.skipping",
            "PictureResult": "clim_models.pipelines.results",
            "PipelineOptions": "clim_models.pipelines.options",
            "ReadPicture": "clim_models.pipelines.reading",
            "RegionPipeline": "clim_models.pipelines.regions",
            "RegionResult": "clim_models.pipelines.region",
            "Source": "clim_models.pipelines.pictures",
            "check_on_error": "clim_models.pipelines.skipping",
            "coco_of_results": "clim_models.pipelines.results",
            "find_peaks": "clim_models.pipelines.peaks",
            "fitted_to_patches": "clim_models.pipelines.reading",
            "in_lists": "clim_models.pipelines.reading",
            "is_one": "clim_models.pipelines.reading",
            "is_url": "clim_models.pipelines.pictures",
            "name_of_picture": "clim_models.pipelines.pictures",
            "picture_format": "clim_models.pipelines.writing",
            "picture_path": "clim_models.pipelines.writing",
            "pipeline": "clim_models.pipelines.tasks",
            "read_ahead": "clim_models.pipelines.reading",
            "read_picture": "clim_models.pipelines.pictures",
            "read_whole": "clim_models.pipelines.reading",
            "write_picture": "clim_models.pipelines.writing",
        },
    )

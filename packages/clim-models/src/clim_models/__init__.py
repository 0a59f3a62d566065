"""open_clip models with dense, box and mask features.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.checkpoints.interpolation import interpolate_weights as interpolate_weights
    from clim_models.checkpoints.load import (
        LoadReport as LoadReport,
        load_checkpoint as load_checkpoint,
    )
    from clim_models.create import PRECISIONS as PRECISIONS, create_model as create_model
    from clim_models.export import save_model as save_model
    from clim_models.features import (
        REQUESTS as REQUESTS,
        Attended as Attended,
        Dense as Dense,
        ImageFeature as ImageFeature,
        Pooled as Pooled,
        Readout as Readout,
        Request as Request,
        request_named as request_named,
    )
    from clim_models.foreign import (
        check_foreign_name as check_foreign_name,
        name_of_export as name_of_export,
    )
    from clim_models.heads.unet import UNetHead as UNetHead
    from clim_models.hub.download import from_pretrained as from_pretrained
    from clim_models.hub.upload import push_to_hub as push_to_hub
    from clim_models.image_side import copy_image_side as copy_image_side
    from clim_models.names import model_config as model_config
    from clim_models.open_clip_compat import no_weights_yet as no_weights_yet
    from clim_models.pipelines.options import PipelineOptions as PipelineOptions
    from clim_models.pipelines.tasks import pipeline as pipeline
    from clim_models.pooling import pool_boxes as pool_boxes, pool_masks as pool_masks
    from clim_models.region_model import RegionModel as RegionModel
    from clim_models.shipped import (
        AFTER_CLIM as AFTER_CLIM,
        NO_WEIGHTS as NO_WEIGHTS,
        SHIPPED as SHIPPED,
        TINY as TINY,
    )
    from clim_models.tiny import (
        SHIPPED_FILES as SHIPPED_FILES,
        TINY_WEIGHTS as TINY_WEIGHTS,
        build_clim_tiny as build_clim_tiny,
        load_shipped_weights as load_shipped_weights,
    )
    from clim_models.towers.registry import register_tower as register_tower
    from clim_models.version import __version__ as __version__
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "AFTER_CLIM": "clim_models.shipped",
            "Attended": "clim_models.features",
            "Dense": "clim_models.features",
            "ImageFeature": "clim_models.features",
            "LoadReport": "clim_models.checkpoints.load",
            "NO_WEIGHTS": "clim_models.shipped",
            "PRECISIONS": "clim_models.create",
            "PipelineOptions": "clim_models.pipelines.options",
            "Pooled": "clim_models.features",
            "REQUESTS": "clim_models.features",
            "Readout": "clim_models.features",
            "RegionModel": "clim_models.region_model",
            "Request": "clim_models.features",
            "SHIPPED": "clim_models.shipped",
            "SHIPPED_FILES": "clim_models.tiny",
            "TINY": "clim_models.shipped",
            "TINY_WEIGHTS": "clim_models.tiny",
            "UNetHead": "clim_models.heads.unet",
            "__version__": "clim_models.version",
            "build_clim_tiny": "clim_models.tiny",
            "check_foreign_name": "clim_models.foreign",
            "copy_image_side": "clim_models.image_side",
            "create_model": "clim_models.create",
            "from_pretrained": "clim_models.hub.download",
            "interpolate_weights": "clim_models.checkpoints.interpolation",
            "load_checkpoint": "clim_models.checkpoints.load",
            "load_shipped_weights": "clim_models.tiny",
            "model_config": "clim_models.names",
            "name_of_export": "clim_models.foreign",
            "no_weights_yet": "clim_models.open_clip_compat",
            "pipeline": "clim_models.pipelines.tasks",
            "pool_boxes": "clim_models.pooling",
            "pool_masks": "clim_models.pooling",
            "push_to_hub": "clim_models.hub.upload",
            "register_tower": "clim_models.towers.registry",
            "request_named": "clim_models.features",
            "save_model": "clim_models.export",
        },
    )

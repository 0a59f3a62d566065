"""What the training methods minimise.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.losses.contrastive import contrastive_loss as contrastive_loss
    from clim_models.losses.distillation import cosine_distillation as cosine_distillation
    from clim_models.losses.federated import (
        federated_class_weights as federated_class_weights,
        federated_region_loss as federated_region_loss,
    )
    from clim_models.losses.gather import GatherFeatures as GatherFeatures
    from clim_models.losses.masks import mask_iou as mask_iou, mask_losses as mask_losses
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "GatherFeatures": "clim_models.losses.gather",
            "contrastive_loss": "clim_models.losses.contrastive",
            "cosine_distillation": "clim_models.losses.distillation",
            "federated_class_weights": "clim_models.losses.federated",
            "federated_region_loss": "clim_models.losses.federated",
            "mask_iou": "clim_models.losses.masks",
            "mask_losses": "clim_models.losses.masks",
        },
    )

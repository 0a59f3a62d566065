"""Prompts and class embeddings.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.text.class_embeddings import (
        embed_classes as embed_classes,
        text_weights as text_weights,
    )
    from clim_models.text.prompts import (
        NAME_TEMPLATE as NAME_TEMPLATE,
        PHOTO_TEMPLATE as PHOTO_TEMPLATE,
        VILD_TEMPLATES as VILD_TEMPLATES,
        class_prompts as class_prompts,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "NAME_TEMPLATE": "clim_models.text.prompts",
            "PHOTO_TEMPLATE": "clim_models.text.prompts",
            "VILD_TEMPLATES": "clim_models.text.prompts",
            "class_prompts": "clim_models.text.prompts",
            "embed_classes": "clim_models.text.class_embeddings",
            "text_weights": "clim_models.text.class_embeddings",
        },
    )

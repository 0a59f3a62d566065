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
    from clim_models.text.vocabulary import (
        REJECTED as REJECTED,
        EmbeddedVocabulary as EmbeddedVocabulary,
        Vocabulary as Vocabulary,
        VocabularyClass as VocabularyClass,
        embed_vocabulary as embed_vocabulary,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "EmbeddedVocabulary": "clim_models.text.vocabulary",
            "NAME_TEMPLATE": "clim_models.text.prompts",
            "PHOTO_TEMPLATE": "clim_models.text.prompts",
            "REJECTED": "clim_models.text.vocabulary",
            "VILD_TEMPLATES": "clim_models.text.prompts",
            "Vocabulary": "clim_models.text.vocabulary",
            "VocabularyClass": "clim_models.text.vocabulary",
            "class_prompts": "clim_models.text.prompts",
            "embed_classes": "clim_models.text.class_embeddings",
            "embed_vocabulary": "clim_models.text.vocabulary",
            "text_weights": "clim_models.text.class_embeddings",
        },
    )

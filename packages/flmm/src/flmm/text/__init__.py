"""Texts: tokens of phrases, noun chunks and prompts.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.text.original import (
        original_chunks as original_chunks,
        original_spans as original_spans,
    )
    from flmm.text.phrases import (
        Chunker as Chunker,
        groundable as groundable,
        noun_chunks as noun_chunks,
        phrase_spans as phrase_spans,
        simple_chunks as simple_chunks,
    )
    from flmm.text.prompts import (
        DESCRIBE as DESCRIBE,
        STYLES as STYLES,
        PromptStyle as PromptStyle,
    )
    from flmm.text.tokens import (
        TokenizedText as TokenizedText,
        phrase_token_spans as phrase_token_spans,
        tokenize_expressions as tokenize_expressions,
        tokenize_sample as tokenize_sample,
        tokenize_segments as tokenize_segments,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Chunker": "flmm.text.phrases",
            "DESCRIBE": "flmm.text.prompts",
            "PromptStyle": "flmm.text.prompts",
            "STYLES": "flmm.text.prompts",
            "TokenizedText": "flmm.text.tokens",
            "groundable": "flmm.text.phrases",
            "noun_chunks": "flmm.text.phrases",
            "original_chunks": "flmm.text.original",
            "original_spans": "flmm.text.original",
            "phrase_spans": "flmm.text.phrases",
            "phrase_token_spans": "flmm.text.tokens",
            "simple_chunks": "flmm.text.phrases",
            "tokenize_expressions": "flmm.text.tokens",
            "tokenize_sample": "flmm.text.tokens",
            "tokenize_segments": "flmm.text.tokens",
        },
    )

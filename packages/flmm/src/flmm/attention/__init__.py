"""Attention of words to the image: its rows, and their capture from a running LMM.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.attention.capture import (
        Capture as Capture,
        PhraseRows as PhraseRows,
        Rows as Rows,
        TokenRows as TokenRows,
        merge_tokens as merge_tokens,
    )
    from flmm.attention.rows import use_rows_attention as use_rows_attention
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Capture": "flmm.attention.capture",
            "PhraseRows": "flmm.attention.capture",
            "Rows": "flmm.attention.capture",
            "TokenRows": "flmm.attention.capture",
            "merge_tokens": "flmm.attention.capture",
            "use_rows_attention": "flmm.attention.rows",
        },
    )

"""From an image and phrases to masks.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.grounders.grounder import (
        Grounder as Grounder,
        SampleGrounder as SampleGrounder,
        SamplePreparer as SamplePreparer,
        ScoredMasks as ScoredMasks,
    )
    from flmm.grounders.heads import (
        HeadsGrounder as HeadsGrounder,
        phrase_features as phrase_features,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Grounder": "flmm.grounders.grounder",
            "HeadsGrounder": "flmm.grounders.heads",
            "SampleGrounder": "flmm.grounders.grounder",
            "SamplePreparer": "flmm.grounders.grounder",
            "ScoredMasks": "flmm.grounders.grounder",
            "phrase_features": "flmm.grounders.heads",
        },
    )

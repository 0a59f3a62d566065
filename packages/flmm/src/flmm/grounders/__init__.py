"""From an image and phrases to masks.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.grounders.attention import (
        AttentionGrounder as AttentionGrounder,
    )
    from flmm.grounders.box import (
        BoxGrounder as BoxGrounder,
    )
    from flmm.grounders.chosen_heads import (
        AttentionHead as AttentionHead,
        ChosenHeads as ChosenHeads,
        choose_heads as choose_heads,
        choose_on_drawn_scenes as choose_on_drawn_scenes,
    )
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
    from flmm.grounders.refining import (
        box_refiner as box_refiner,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "AttentionGrounder": "flmm.grounders.attention",
            "AttentionHead": "flmm.grounders.chosen_heads",
            "BoxGrounder": "flmm.grounders.box",
            "ChosenHeads": "flmm.grounders.chosen_heads",
            "Grounder": "flmm.grounders.grounder",
            "HeadsGrounder": "flmm.grounders.heads",
            "SampleGrounder": "flmm.grounders.grounder",
            "SamplePreparer": "flmm.grounders.grounder",
            "ScoredMasks": "flmm.grounders.grounder",
            "box_refiner": "flmm.grounders.refining",
            "choose_heads": "flmm.grounders.chosen_heads",
            "choose_on_drawn_scenes": "flmm.grounders.chosen_heads",
            "phrase_features": "flmm.grounders.heads",
        },
    )

"""From the name of a refiner to the refiner."""

from pathlib import Path
from typing import Any

from flmm.refiners.coarse_only import CoarseOnly
from flmm.refiners.refiner import NO_REFINER, TrainableRefiner


def load_refiner(source: str | Path, **options: Any) -> TrainableRefiner:
    """Load a refiner, in float32 on the CPU.

    Args:
        source: "none" for coarse masks only, or a SAM: a file in the original layout, a folder in
            transformers' layout, or a hub id.
        options: of `SamRefiner`; "none" ignores them.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the file is damaged, or no SAM.
    """
    if str(source) == NO_REFINER:
        return CoarseOnly()

    # Imported here: the models of transformers take seconds, and "none" needs none of them.
    from flmm.refiners.sam.refiner import SamRefiner

    return SamRefiner.from_pretrained(source, **options)

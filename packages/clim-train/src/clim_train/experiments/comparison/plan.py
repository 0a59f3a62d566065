"""The plan of a comparison, and its figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_models import RegionModel
from torch import Tensor

from clim_train.experiments.comparison.arms import START, Arm, ArmOptions
from clim_train.experiments.comparison.data import ComparisonData, Metrics
from clim_train.experiments.comparison.measure import OUTPUTS

ALPHAS = (0.3, 0.5, 0.7)
SUMMARY = {"region": "seen.boxes.all.mAcc1", "t2i R@1": "retrieval.t2i.R@1"}

Prepare = Callable[[Path, RegionModel], ComparisonData]
"""Make the data of a comparison below a folder."""


@dataclass(frozen=True)
class Plan:
    """The plan of a comparison.

    Args:
        options: what all arms share.
        sources: says which data these are; a folder holds one such set of options and data.
        arms: the arms to train, by name.
        seeds: each arm is trained once per seed.
        alphas: weights between start (0) and trained (1) that are measured as well.
        mixed: names of the arms that are measured at `alphas`; None for all.
        outputs: readouts of a region, as `RegionClassification` names them.
        start: title of the row of the untouched model.
        summary: the figures to print after each measurement: title -> name of a figure.
    """

    options: ArmOptions
    sources: Mapping[str, Any]
    arms: Mapping[str, Arm]
    seeds: Sequence[int] = (0,)
    alphas: Sequence[float] = ALPHAS
    mixed: Sequence[str] | None = None
    outputs: Sequence[str] = OUTPUTS
    start: str = START
    summary: Mapping[str, str] | None = None

    def exports(self, arm: Arm, seed: int) -> bool:
        """Tell whether a run keeps its export: CLIM's first, which the next commands open.

        The trained weights of the others stay in `trained.safetensors`, and `clim-train export`
        makes their exports.
        """
        return arm is self.arms.get("clim") and seed == self.seeds[0]

    def alphas_of(self, arm: str) -> tuple[float, ...]:
        """Return the mixtures with the start at which an arm is measured."""
        return tuple(self.alphas) if self.mixed is None or arm in self.mixed else ()


@dataclass
class Results:
    """The figures of a comparison.

    Args:
        rows: title of the start or of an arm -> its figures, one for each seed.
        points: name of an arm -> alpha -> its figures, one for each seed.
        towers: title -> image tower of the start, and of each arm after its first seed.
    """

    rows: dict[str, list[Metrics]]
    points: dict[str, dict[float, list[Metrics]]]
    towers: dict[str, dict[str, Tensor]]

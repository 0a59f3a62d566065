"""Samples that the loader left out, over all ranks: a number for the metrics, names for
`skipped.json`."""

from pathlib import Path
from typing import Any

import torch
from clim_data import SkipReport
from clim_data.files import write_json
from clim_data.processes import Ranks, gather_objects

from clim_train.run.metrics import sum_over_ranks


class SkipCount:
    """Counts what `loader.skipped` (a `SkipReport`) has; loaders without one count nothing.

    Every rank knows the faults that a loader finds when it is built (samples missing from a shard).
    A fault in decoding is known only to the rank that reads the sample.
    """

    def __init__(self, loader: Any, device: torch.device):
        self.report: SkipReport | None = getattr(loader, "skipped", None)
        self._device = device
        self._known_to_all = self.report.total if self.report else 0

    def total(self) -> dict[str, float]:
        """Return {"skipped": samples left out since this process started, on all ranks}.
        Collective."""
        if self.report is None:
            return {}
        found = sum_over_ranks(self.report.total - self._known_to_all, self._device)
        return {"skipped": self._known_to_all + found}

    def write(self, path: Path) -> str | None:
        """Rank 0 writes counts and names of all ranks; returns a summary if there were any.
        Collective."""
        if self.report is None:
            return None
        merged = SkipReport()
        for faults in gather_objects(self.report.faults):
            merged.extend(faults)
        if not merged.total:
            return None
        if Ranks.of_group().is_first:
            write_json(path, merged.to_dict(), indent=2)
        return merged.summary()

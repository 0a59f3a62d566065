"""Overlaps of predicted masks with true ones, kept as counts: per sample, on the disk, for several processes at once.

Letters: N masks, h w size of the logits, H W size of the true masks.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clim_eval.ranks import gather_parts
from clim_eval.report import plain

# So many values of resized logits exist at a time; a batch of more masks is done in pieces. On a CPU they then stay in
# its caches, and in memory that the process has already: several times as fast as all at once.
_VALUES = 1 << 26
_CPU_VALUES = 1 << 21


@dataclass(frozen=True)
class MaskOverlaps:
    """Pixel counts of N pairs of masks: int64 (N,) intersections and unions, and the pixels of one mask."""

    intersections: Tensor
    unions: Tensor
    pixels: int


@torch.no_grad()
def mask_overlaps(logits: Tensor, masks: Tensor) -> MaskOverlaps:
    """Compare N mask logits with N true masks, in one go and on their device.

    The prediction is sigmoid, then bilinear (align_corners False) to the true masks' size if it differs, then > 0.5:
    probabilities are resized, not logits, as the published evaluations do.

    Args:
        logits: float (N, h, w).
        masks: bool, or numbers that are 0 or 1, (N, H, W), on the same device.

    Raises:
        ValueError: another number of masks than logits, or other dimensions.
    """
    if logits.ndim != 3 or masks.ndim != 3 or len(logits) != len(masks):
        raise ValueError(f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)}: pass (N, h, w) and (N, H, W)")
    height, width = masks.shape[-2:]
    at_once = _CPU_VALUES if masks.device.type == "cpu" else _VALUES
    step = max(1, at_once // max(1, height * width))
    counts = torch.zeros(2, len(masks), dtype=torch.int64, device=masks.device)
    for start in range(0, len(masks), step):
        piece = slice(start, start + step)
        predicted, true = _predicted(logits[piece], (height, width)), masks[piece].bool()
        counts[0, piece] = _pixels(predicted & true)
        counts[1, piece] = _pixels(predicted | true)
    return MaskOverlaps(counts[0], counts[1], height * width)


def _pixels(masks: Tensor) -> Tensor:
    # Counting in 32 bits is three times as fast on a CPU as torch's default, and a mask has fewer pixels than that.
    return masks.flatten(1).sum(1, dtype=torch.int32)


def _predicted(logits: Tensor, size: tuple[int, int]) -> Tensor:
    shares = logits.float().sigmoid()
    if tuple(shares.shape[-2:]) != size:
        shares = F.interpolate(shares[None], size, mode="bilinear", align_corners=False)[0]
    return shares > 0.5


class MaskScores:
    """Overlap counts of every sample so far; with a folder they survive the process.

    Each rank appends to its own `scores-RANK.jsonl`, one line a sample. A run that is started again in the folder, on
    any number of ranks, finds what was done by `key in scores`. `gather()`, when a rank is through, joins all of them.

    Args:
        folder: for the lines; None keeps them in memory only.
        rank: of this process.
        config: what the scores depend on (model, checkpoint, data, protocol), a dataclass or json value; it is written
            to `config.json` and must be the same when a folder is used again.

    Raises:
        ValueError: the folder holds scores of another config, or a damaged line that is not its file's last.
    """

    def __init__(self, folder: str | os.PathLike | None = None, *, rank: int = 0, config: Any = None):
        self.rows: dict[str, dict] = {}
        self._folder = None if folder is None else Path(folder)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._claim(json.loads(json.dumps(plain(config))), rank)
        self._own = self._folder / f"scores-{rank:04d}.jsonl"
        _drop_torn_line(self._own)
        self._read()

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        """Samples that are known here."""
        return len(self.rows)

    def add(self, key: str, overlaps: MaskOverlaps, **flags: Sequence[bool]) -> None:
        """Keep the counts of one sample, and N values for each name in `flags` (the counts are moved to the CPU once).

        Raises:
            ValueError: flags of another length.
        """
        intersections, unions = torch.stack([overlaps.intersections, overlaps.unions]).tolist()
        row = {"key": key, "intersections": intersections, "unions": unions, "pixels": overlaps.pixels}
        for name, values in flags.items():
            if len(values) != len(unions):
                raise ValueError(f"{name} has {len(values)} values for {len(unions)} masks: pass one for each")
            row[name] = [bool(value) for value in values]
        if self._folder is not None:
            with open(self._own, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        self.rows[key] = row

    def gather(self) -> "MaskScores":
        """Take in the samples of all ranks of the process group (every rank has to call it); returns itself."""
        for rows in gather_parts(self.rows):
            self.rows |= rows
        return self

    def _read(self) -> None:
        for path in sorted(self._folder.glob("scores-*.jsonl")):
            lines = path.read_text(encoding="utf-8").split("\n")
            for number, line in enumerate(lines[:-1], start=1):  # what follows the last line's end is being written
                try:
                    row = json.loads(line)
                    self.rows[row["key"]] = row
                except (ValueError, KeyError, TypeError):
                    raise ValueError(f"{path} line {number} is damaged: remove that line to score it again") from None

    def column(self, name: str) -> np.ndarray:
        """One value for each mask of all samples, in the order of their keys: "intersections", "unions" or a flag.

        Raises:
            ValueError: a sample has no such value.
        """
        rows = [self.rows[key] for key in sorted(self.rows)]
        missing = next((row["key"] for row in rows if name not in row), None)
        if missing is not None:
            raise ValueError(f"sample {missing!r} has no {name!r}: pass it to add()")
        kind = np.int64 if name in ("intersections", "unions") else bool
        return np.array([value for row in rows for value in row[name]], dtype=kind)

    def pixels(self) -> np.ndarray:
        """int64: pixels of each mask, in the order of `column`."""
        rows = [self.rows[key] for key in sorted(self.rows)]
        return np.repeat([row["pixels"] for row in rows], [len(row["unions"]) for row in rows]).astype(np.int64)

    def _claim(self, config: Any, rank: int) -> None:
        path = self._folder / "config.json"
        if path.is_file():
            if json.loads(path.read_bytes()) != config:
                raise ValueError(f"{self._folder} holds scores of another configuration: use another folder")
            return
        part = path.with_name(f".config-{rank}.{os.getpid()}")
        part.write_text(json.dumps(config, indent=2))
        os.replace(part, path)


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed run left without its end."""
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
        with open(path, "r+b") as out:
            out.truncate(data.rfind(b"\n") + 1)


def ious(intersections: np.ndarray, unions: np.ndarray, *, empty: float = float("nan")) -> np.ndarray:
    """float64 intersection / union; `empty` where the union is empty."""
    known = unions > 0
    return np.where(known, intersections / np.where(known, unions, 1), empty)


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics with "PREFIX." before each name."""
    return {f"{prefix}.{name}": value for name, value in metrics.items()}

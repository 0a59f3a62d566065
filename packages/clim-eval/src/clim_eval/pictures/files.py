"""Figures as PNG files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data.files import write_bytes, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def write_png(path: Path, figure: Figure | str | os.PathLike) -> None:
    """Save a matplotlib Figure as a PNG of `DPI`, or copy an existing PNG; the file appears whole
    or not at all."""
    if isinstance(figure, str | os.PathLike):
        if not Path(figure).is_file():
            raise FileNotFoundError(
                f"{figure} does not exist: pass a matplotlib Figure or the path of a PNG"
            )
        write_bytes(path, Path(figure).read_bytes())
        return
    with write_whole(path) as draft:
        figure.savefig(
            draft, dpi=DPI, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.08
        )

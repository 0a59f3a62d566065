"""Text files that people write: lists of names."""

from collections import Counter
from pathlib import Path

from clim_data.command_line.checks import need_path


def read_names(path: Path, option: str) -> list[str]:
    """Names of a text file, one a line; blank lines do not count.

    Raises FileNotFoundError, and ValueError for a name that occurs twice (each name is one class)
    or no name.
    """
    need_path(path, option)
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    repeated = sorted({name for name, count in Counter(names).items() if count > 1})
    if repeated:
        raise ValueError(f"{path} has {repeated[:5]} more than once: keep one line for each name")
    if not names:
        raise ValueError(f"{path} holds no name: write one a line")
    return names

"""What the command lines of all packages share."""

from collections.abc import Sequence
from pathlib import Path


def need_path(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Raise ValueError when the option is missing, FileNotFoundError when its path is no file (or
    folder)."""
    if path is None:
        raise ValueError(f"this needs {option} PATH: pass it")
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise FileNotFoundError(f"{path} is not a {kind}: pass the right one with {option}")


def one_argument(values: Sequence[str], form: str) -> str:
    """The only one of `values`. Raises ValueError, which quotes the command's `form`, for more or
    none."""
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `{form}`")
    return values[0]


def without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher adds --local_rank=N, which the environment says as well."""
    return [
        argument
        for argument in arguments
        if not argument.startswith(("--local_rank=", "--local-rank="))
    ]

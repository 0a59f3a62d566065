"""Checks of options and arguments that several commands share."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def need_path(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Check that an option names a file (or a folder) that is there.

    Raises:
        ValueError: the option is missing.
        FileNotFoundError: there is no such file or folder.
    """
    if path is None:
        raise ValueError(f"this needs {option} PATH: pass it")
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise FileNotFoundError(f"{path} is not a {kind}: pass the right one with {option}")


def refuse_inside(path: Path, folder: str | Path, option: str) -> None:
    """Refuse to write below a folder of images: the next run would read what this one writes.

    Raises:
        ValueError: `path`, which `option` names, is the folder or lies in it.
    """
    if path.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(
            f"{option} {path} is in {folder}, and the next run would read its pictures: choose a "
            "folder elsewhere"
        )


def at_least(least: int) -> Callable[[str], int]:
    """Make the type of an option that is a whole number, at least `least`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return value

    return number


def one_argument(values: Sequence[str], form: str) -> str:
    """Return the only value of a list.

    Raises:
        ValueError: there are more values or none; the message quotes the command's `form`.
    """
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `{form}`")
    return values[0]


def without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the --local_rank=N that DeepSpeed's launcher adds.

    The environment has the same number.
    """
    return [
        argument
        for argument in arguments
        if not argument.startswith(("--local_rank=", "--local-rank="))
    ]


def given(options: Namespace, *names: str) -> dict[str, Any]:
    """Return the options among `names` that the user passed, those that are not None.

    The functions that take them have the defaults.
    """
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}

"""Options that are paths: stored as absolute paths, so that they hold from every directory."""

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

PATH = {"path": "path"}
"""Metadata of a field that names files or folders; URLs and commands may stand there as well."""

PATH_OR_NAME = {"path": "path or name"}
"""Metadata of a field that may also name something else, such as weights of a library."""

OUTPUT = {"path": "output"}
"""Metadata of a field that names a folder to which training writes, next to the run folder."""

Options = TypeVar("Options")


def with_absolute_paths(options: Options) -> Options:
    """Return frozen options, nested ones too, whose relative paths are absolute.

    URLs and shell commands stay as they are. So does a name, unless there is such a file or folder.
    """
    changes: dict[str, Any] = {}
    for option in fields(options):  # type: ignore[arg-type]  # a frozen dataclass
        value = getattr(options, option.name)
        kind = option.metadata.get("path")
        if is_dataclass(value):
            changed: Any = with_absolute_paths(value)
        elif kind is not None and isinstance(value, tuple):
            changed = tuple(_absolute(each, kind) for each in value)
        elif kind is not None and isinstance(value, str):
            changed = _absolute(value, kind)
        else:
            continue
        if changed != value:
            changes[option.name] = changed
    return replace(options, **changes) if changes else options  # type: ignore[type-var]


def output_folders(options: Any) -> Iterator[tuple[str, str]]:
    """Yield name ("section.option") and value of the options that are `OUTPUT`."""
    for section in fields(options):
        inner = getattr(options, section.name)
        for option in fields(inner) if is_dataclass(inner) else ():
            value = getattr(inner, option.name)
            if option.metadata == OUTPUT and value is not None:
                yield f"{section.name}.{option.name}", value


def _absolute(text: str, kind: str) -> str:
    # "pipe:", "https:", "s3:" ... and the home folder mean the same everywhere.
    if ":" in text or text.startswith("~") or os.path.isabs(text):
        return text
    if kind == PATH_OR_NAME["path"] and not _is_there(Path(text)):
        return text
    return os.path.abspath(text)


def _is_there(path: Path) -> bool:
    """Return whether a name is a path: a file or a folder of weights, not a folder by chance."""
    if path.is_file():
        return True
    known = ("config.json", "model.safetensors", "pytorch_model.bin")
    return any((path / name).is_file() for name in known)

"""From what a user names (shards, globs, folders, URLs) to a list of shards."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand

from clim_data.sources.folders import image_files

Sources = str | Path | Sequence[str | Path]


def is_remote(source: str) -> bool:
    return source.startswith("pipe:") or "://" in source


def expand_sources(sources: Sources) -> list[str]:
    """Shard paths, URLs and image folders of a glob, folder, list or URL with braces, in a fixed
    order, each once.

    `{000..012}` and `{a,b}` are expanded in paths and URLs. A folder means every `*.tar` below it;
    one without any is itself a source, if it holds images.

    Raises:
        FileNotFoundError: a path or glob matches nothing.
        ValueError: no source was given.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    shards: list[str] = []
    for source in map(str, listed):
        for item in braceexpand(source):
            if is_remote(item):
                shards.append(item)
            elif os.path.isdir(item):
                shards += _of_folder(item)
            else:
                found = _found(sorted(glob.glob(item)), f"{item} matches no file")
                shards += [
                    name
                    for path in found
                    for name in (_of_folder(path) if os.path.isdir(path) else [path])
                ]
    if not shards:
        raise ValueError("sources is empty: give at least one shard path, glob, folder or URL")
    return list(dict.fromkeys(shards))


def _of_folder(folder: str) -> list[str]:
    tars = sorted(map(str, Path(folder).rglob("*.tar")))
    if tars:
        return tars
    return _found(
        [os.path.abspath(folder)] if image_files(folder) else [],
        f"{folder} holds no *.tar and no image",
    )


def _found(paths: list[str], otherwise: str) -> list[str]:
    if not paths:
        raise FileNotFoundError(
            f"{otherwise}: check the path; name shards (tars) or a folder of jpg, png or webp"
        )
    return paths


def shard_name(source: str) -> str:
    """Last part of a path or URL (of the whole command for a pipe)."""
    return source if source.startswith("pipe:") else source.rstrip("/").rpartition("/")[2]

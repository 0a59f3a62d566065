"""Expansion of a user's sources (shards, globs, folders, URLs) to a list of shards."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand

from clim_data.faults import SkipReport
from clim_data.sources.walk import FolderContent, walk_folder

Sources = str | Path | Sequence[str | Path]


def is_remote(source: str) -> bool:
    """Tell whether a source is a URL or a pipe, not a path."""
    return source.startswith("pipe:") or "://" in source


def expand_sources(sources: Sources) -> list[str]:
    """List the shards, URLs and image folders that `sources` mean, in a fixed order, each once.

    `{000..012}` and `{a,b}` are expanded in paths and URLs. A folder means every `*.tar` below it;
    one without any is itself a source, if it holds images. An existing path is never read as a
    pattern.

    Raises:
        FileNotFoundError: a path or glob matches nothing.
        ValueError: no source was given, a folder holds images and tars, or part of a folder of
            shards cannot be entered.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    shards: list[str] = []
    for source in map(str, listed):
        # Existing paths come before patterns: "run[1].tar", "photos {a,b}".
        exists = not is_remote(source) and os.path.exists(source)
        for item in [source] if exists else braceexpand(source):
            shards += [item] if is_remote(item) else _of_pattern(item)
    if not shards:
        raise ValueError("sources is empty: give at least one shard path, glob, folder or URL")
    return list(dict.fromkeys(shards))


def _of_pattern(item: str) -> list[str]:
    """Shards and folders of one path or glob."""
    if os.path.exists(item):
        paths = [item]
    else:
        paths = _found(sorted(glob.glob(item)), f"{item} matches no file")

    shards: list[str] = []
    for path in paths:
        shards += _of_folder(path) if os.path.isdir(path) else [path]
    return shards


def _of_folder(folder: str) -> list[str]:
    """The shards below a folder, or the folder itself if it holds images."""
    content = walk_folder(folder)
    refuse_stray_shard(folder, content)
    closed = [fault for fault in content.faults if fault.reason == "unreadable folder"]
    if content.shards and closed:
        raise ValueError(f"{closed[0]}: make it readable, or name the shards one by one")
    told = f" ({SkipReport(content.faults).summary(3)})" if content.faults else ""
    _found(content.shards + content.images, f"{folder} holds no *.tar and no image{told}")
    if content.shards:
        return [os.path.join(folder, name) for name in content.shards]
    return [os.path.abspath(folder)]


def refuse_shards(images: str | Path) -> None:
    """Refuse shards where a folder of image files is needed.

    Raises:
        ValueError: `images` is a tar, an address, or a folder of tars without any image.
    """
    folder = Path(images)
    is_shard = is_remote(str(images)) or folder.suffix.lower() == ".tar"
    if not is_shard and next(folder.glob("*.tar"), None) is not None:
        is_shard = not walk_folder(folder).images
    if is_shard:
        raise ValueError(
            f"{images} is shards, and this needs image files: training, evaluation and proposals "
            "read shards as they are; to pack other ones, unpack them into a folder first (tar "
            "-xf SHARD.tar -C FOLDER)"
        )


def refuse_stray_shard(folder: str | Path, content: FolderContent) -> None:
    """Refuse a folder that holds images and tars: which of them are meant is not known.

    Raises:
        ValueError: see above.
    """
    if not (content.shards and content.images):
        return
    first = content.shards[0]
    inner = os.path.join(folder, os.path.dirname(first) or "*.tar")
    images = f"{len(content.images)} image{'s' if len(content.images) > 1 else ''}"
    raise ValueError(
        f"{folder} holds {images} and {os.path.join(folder, first)}: name {inner!r}, or take "
        "the tar out"
    )


def _found(paths: list[str], otherwise: str) -> list[str]:
    if not paths:
        raise FileNotFoundError(
            f"{otherwise}: check the path; name shards (tars) or a folder of jpg, png or webp"
        )
    return paths


def shard_name(source: str) -> str:
    """Return the last part of a path or URL (of the whole command for a pipe)."""
    return source if source.startswith("pipe:") else source.rstrip("/").rpartition("/")[2]

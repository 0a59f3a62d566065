"""The one walk through a folder: its images, its shards, and its unusable files, by name."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from clim_data.faults import BrokenSample
from clim_data.files.names import is_image, is_other_image, is_utf8, last_part, printable

FIX_FORMAT = "convert it to jpg, png or webp"


@dataclass
class FolderContent:
    """The files below a folder; names are relative to it, with "/", sorted.

    images: files that are read. shards: tars. faults: folders that cannot be entered, images of
    other formats, broken links, names that are not UTF-8; their names begin with the folder's.
    """

    images: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    faults: list[BrokenSample] = field(default_factory=list)


def walk_folder(root: str | Path) -> FolderContent:
    """Find every image and tar below `root`.

    Links are followed, also to folders, because the user made them. Hidden files and folders do not
    count. A folder that is reached twice, by a link to a folder above, is entered once.
    """
    content = FolderContent()
    title = Path(root).name or str(root)
    waiting = [(str(root), "")]
    entered: set[tuple[int, int]] = set()
    while waiting:
        folder, prefix = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as fault:
            name = printable(f"{title}/{prefix}".rstrip("/"))
            content.faults.append(
                BrokenSample("unreadable folder", name, fault.strerror or str(fault))
            )
            continue

        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = prefix + entry.name
            if entry.is_dir():
                below.append((entry.is_symlink(), entry.path, f"{name}/"))
                continue
            _sort_in(entry, name, title, content)

        # The stack is emptied from its end: real folders go first, links after them, by name.
        for _, path, inner in sorted(below, reverse=True):
            waiting.append((path, inner))

    content.images.sort()
    content.shards.sort()
    return content


def image_files(root: str | Path) -> list[str]:
    """Return the names, relative to `root`, of every jpg, jpeg, png and webp below it, sorted."""
    return walk_folder(root).images


def _sort_in(entry: os.DirEntry, name: str, title: str, content: FolderContent) -> None:
    """Put one file where it belongs."""
    is_shard = entry.name.lower().endswith(".tar")
    shown = printable(f"{title}/{name}")
    if entry.is_symlink() and not os.path.exists(entry.path):
        if is_shard or is_image(name) or "." not in last_part(name):
            target = printable(os.readlink(entry.path))
            content.faults.append(BrokenSample("missing image", shown, f"broken link to {target}"))
    elif is_shard:
        content.shards.append(name)
    elif is_other_image(name):
        content.faults.append(BrokenSample("unsupported format", shown, FIX_FORMAT))
    elif is_image(name):
        if not is_utf8(name):
            content.faults.append(BrokenSample("bad file name", shown, "not UTF-8: rename it"))
        elif "\\" in name:
            content.faults.append(
                BrokenSample("bad file name", shown, "it holds a backslash: rename it")
            )
        elif not entry.is_file():  # reading a pipe would wait for ever
            content.faults.append(BrokenSample("unreadable image", shown, "not a file"))
        else:
            content.images.append(name)

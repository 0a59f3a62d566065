"""Names of images: which file a record means, and which files are images."""

import os
import posixpath
from pathlib import Path
from urllib.parse import urlparse

from clim_data.faults import BrokenSample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


def image_file_name(image: dict) -> str:
    """Relative file name of an image record: "file_name", or the end of "coco_url" (LVIS:
    "train2017/0001.jpg")."""
    if image.get("file_name"):
        return image["file_name"]
    if image.get("coco_url"):
        return "/".join(urlparse(image["coco_url"]).path.split("/")[-2:])
    raise BrokenSample("no file name", f"image {image.get('id')}", "neither file_name nor coco_url")


def inside(folder: str | Path, name: str) -> Path:
    """`folder / name`, refused when the name is absolute or climbs out of the folder.

    Links below the folder are followed: they are the user's own, the name is the annotation's.

    Raises:
        BrokenSample: the name leads out of the folder.
    """
    if not isinstance(name, str) or leads_out(name):
        raise BrokenSample(
            "path outside the folder", str(name) or "(empty name)", f"leads out of {folder}"
        )
    return Path(folder) / posixpath.normpath(name.replace("\\", "/"))


def find_image(folder: str | Path, image: dict) -> Path:
    """Path of an image record below `folder` (see `locate`).

    Raises:
        BrokenSample: the record has no name, its name leads out of the folder, or there is no such
            file.
    """
    return locate(folder, image_file_name(image))


def locate(folder: str | Path, name: str) -> Path:
    """Path of an image file by the name that an annotation gives it.

    A name with its split, as LVIS has it ("train2017/0001.jpg"), is found below the folder that
    holds the splits, and in the folder of that split itself.

    Raises:
        BrokenSample: the name leads out of the folder, or there is no such file.
    """
    path = inside(folder, name)
    if path.is_file():
        return path
    first, _, rest = posixpath.normpath(name).partition("/")
    if rest and first == Path(folder).resolve().name and (Path(folder) / rest).is_file():
        return Path(folder) / rest
    raise BrokenSample("missing image", str(path), "no such file")


def is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def leads_out(name: str) -> bool:
    """Whether a relative file name is empty, absolute (also on Windows), holds a null, or climbs
    out of its folder."""
    flat = posixpath.normpath(name.replace("\\", "/"))
    climbs = flat == ".." or flat.startswith(("../", "/")) or ":" in flat.split("/")[0]
    return not name or climbs or "\0" in name


def sample_key(file_name: str) -> str:
    """Key that `clim-data pack` gives an image: its name without ending, and without what
    webdataset cuts at."""
    stem = os.path.splitext(file_name)[0].strip("/") or "sample"
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)

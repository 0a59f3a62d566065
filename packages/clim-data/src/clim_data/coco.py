"""COCO-style annotation files: reading them with clear errors, and finding the images they name."""

import json
import posixpath
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlparse

from clim_data.report import BrokenSample, leads_out


def read_annotations(path: str | Path, *tables: str) -> dict:
    """Parse an annotation json and check that it has the named lists ("images", "annotations", ...).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json (cut off while copying?), or a list is missing.
    """
    path = require_annotation_file(path)
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{path} is not valid json ({fault}): fetch it again, it may be cut off") from None
    for table in tables:
        if not isinstance(record, dict) or not isinstance(record.get(table), list):
            found = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f'{path} has no list "{table}" (found {found}): give a COCO-style annotation file')
    return record


def require_annotation_file(path: str | Path) -> Path:
    """The path, if there is a file; else FileNotFoundError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no annotation file {path}: `clim-data doctor` says where official ones come from, `clim-data proposals` "
            "makes boxes"
        )
    return path


def group_by_image(annotations: list[dict]) -> dict[int, list[dict]]:
    """Annotations of each image id, in file order; ValueError when one names no image."""
    groups: dict[int, list[dict]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise ValueError(f'annotation {number} has no "image_id": {annotation!r}; give a COCO-style file')
        groups[annotation["image_id"]].append(annotation)
    return groups


def label_of_category(categories: list[dict]) -> dict[int, int]:
    """Contiguous label of each category id: its rank among the sorted ids."""
    return {category_id: label for label, category_id in enumerate(sorted(c["id"] for c in categories))}


def image_file_name(image: dict) -> str:
    """Relative file name of an image record: "file_name", or the end of "coco_url" (LVIS: "train2017/0001.jpg")."""
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
        raise BrokenSample("path outside the folder", str(name) or "(empty name)", f"leads out of {folder}")
    return Path(folder) / posixpath.normpath(name.replace("\\", "/"))


def find_image(folder: str | Path, image: dict) -> Path:
    """Path of an image record below `folder` (see `locate`).

    Raises:
        BrokenSample: the record has no name, its name leads out of the folder, or there is no such file.
    """
    return locate(folder, image_file_name(image))


def locate(folder: str | Path, name: str) -> Path:
    """Path of an image file by the name that an annotation gives it.

    A name with its split, as LVIS has it ("train2017/0001.jpg"), is found below the folder that holds the splits, and
    in the folder of that split itself.

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

"""Captions in files: of COCO, of cc3m lists, and beside the images of a folder."""

import json
from pathlib import Path

from clim_data.annotations.coco import group_by_image, read_annotations

CAPTION_LIST = "metadata.jsonl"


def captions_of_images(captions_json: str | Path) -> list[tuple[dict, list[str]]]:
    """(image record, captions) of every image of a COCO captions file or a CC3M-style file, in file
    order.

    A CC3M-style file is {"images": [{"id", "file_name", "captions": [...]}]}.

    Raises:
        FileNotFoundError, ValueError: no such file, or neither layout.
    """
    record = read_annotations(captions_json, "images")
    if isinstance(record.get("annotations"), list):
        groups = group_by_image(record["annotations"])
        return [
            (im, [a.get("caption", "") for a in groups.get(im["id"], [])])
            for im in record["images"]
        ]
    if not all(isinstance(image.get("captions"), list) for image in record["images"]):
        raise ValueError(
            f'{captions_json} has neither "annotations" nor "captions" in each image: see the '
            "README"
        )
    return [(image, image["captions"]) for image in record["images"]]


def read_caption_table(path: str | Path) -> dict[str, list[str]]:
    """Captions by file name from a json object {file name: caption or list}, or from a jsonl file.

    A line of the jsonl has "file_name" and "text", "caption" or "captions".

    Raises:
        FileNotFoundError: no such file. ValueError: a line or the file is not as described.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no captions file {path}: give a json or jsonl file")
    try:
        if path.suffix == ".jsonl":
            rows = [
                json.loads(line)
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.strip()
            ]
            table = {
                row["file_name"]: row.get("captions", row.get("caption", row.get("text")))
                for row in rows
            }
        else:
            table = dict(json.loads(path.read_bytes()).items())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as fault:
        raise ValueError(
            f"{path} cannot be used ({fault!r}): see `folder` in the README for its layout"
        ) from None
    return {
        name: [texts] if isinstance(texts, str) else list(texts or [])
        for name, texts in table.items()
    }


def captions_beside(image: Path) -> list[str] | None:
    """Lines of the txt of the same name beside an image; None when there is no such file."""
    try:
        return image.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None

"""Captions by image from the two json layouts that are in use."""

from pathlib import Path

from clim_data.coco import group_by_image, read_annotations


def captions_of_images(captions_json: str | Path) -> list[tuple[dict, list[str]]]:
    """(image record, captions) of every image of a COCO captions file or a CC3M-style file, in file order.

    A CC3M-style file is {"images": [{"id", "file_name", "captions": [...]}]}.

    Raises:
        FileNotFoundError, ValueError: no such file, or neither layout.
    """
    record = read_annotations(captions_json, "images")
    if isinstance(record.get("annotations"), list):
        groups = group_by_image(record["annotations"])
        return [(im, [a.get("caption", "") for a in groups.get(im["id"], [])]) for im in record["images"]]
    if not all(isinstance(image.get("captions"), list) for image in record["images"]):
        raise ValueError(f'{captions_json} has neither "annotations" nor "captions" in each image: see the README')
    return [(image, image["captions"]) for image in record["images"]]

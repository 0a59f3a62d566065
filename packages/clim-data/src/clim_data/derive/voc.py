"""The annotations of Pascal VOC, one XML file per image, as one COCO json."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clim_data.annotations.box_rules import check_box
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.atomic import write_json
from clim_data.files.text import read_lines

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
# Words for a text tower; the others are their own.
_WORDS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
}


@dataclass(frozen=True)
class VocReport:
    """What was written, and the images and boxes that were skipped."""

    output: Path
    images: int
    boxes: int
    difficult: int
    skipped: SkipReport = field(default_factory=SkipReport)

    def __str__(self) -> str:
        return (
            f"{self.output}: {self.images:,} images, {self.boxes:,} boxes of {len(VOC_CLASSES)} "
            f"classes, {self.difficult:,} difficult ones that do not count"
        )


def write_voc_json(root: str | Path, split: str, output: str | Path) -> VocReport:
    """Write the boxes of a split of Pascal VOC as a COCO json, in the official order of classes.

    Corners of VOC count from 1 and are inclusive. Difficult objects become crowd regions, which
    neither have to be found nor are false. Images are numbered by their line in the split.

    Args:
        root: a year of VOC, with `ImageSets/Main`, `Annotations` and `JPEGImages`.
        split: name of a list in `ImageSets/Main`, such as "test".
        output: file to write.

    Raises:
        FileNotFoundError: no such list.
        ValueError: no image of the list has annotations.
    """
    root = Path(root)
    names = root / "ImageSets" / "Main" / f"{split}.txt"
    if not names.is_file():
        raise FileNotFoundError(
            f"there is no {names}: pass a year of VOC, such as VOCdevkit/VOC2007, and a split of it"
        )
    skipped = SkipReport()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, line in enumerate(read_lines(names), start=1):
        stem = line.split()[0]
        try:
            image, boxes = _read_image(root / "Annotations" / f"{stem}.xml", skipped)
        except BrokenSample as fault:
            skipped.add(fault)
            continue
        images.append({"id": number, "file_name": f"{stem}.jpg", **image})
        for box in boxes:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **box})
    if not images:
        raise ValueError(
            f"no image of {names} has annotations below {root} ({skipped.summary(3)}): unpack "
            "the annotations of this split"
        )

    categories = [
        {"id": number, "name": _WORDS.get(name, name)}
        for number, name in enumerate(VOC_CLASSES, start=1)
    ]
    contents = {"images": images, "annotations": annotations, "categories": categories}
    write_json(Path(output), contents)
    difficult = sum(box["iscrowd"] for box in annotations)
    return VocReport(Path(output), len(images), len(annotations) - difficult, difficult, skipped)


def _read_image(path: Path, skipped: SkipReport) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Read the size and the boxes of an image; boxes that cannot be used are skipped and named.

    Raises:
        BrokenSample: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("it declares entities, which none of VOC's files do")
        root = ElementTree.fromstring(data)
        width, height = (int(root.findtext(f"size/{side}") or "") for side in ("width", "height"))
    except (OSError, ValueError, ElementTree.ParseError) as fault:
        raise BrokenSample("bad annotations", path.name, str(fault)) from None

    boxes = []
    for place, item in enumerate(root.iter("object"), start=1):
        name = (item.findtext("name") or "").strip()
        try:
            corners = _corners(item, (height, width), f"{path.name}, object {place}")
            category = VOC_CLASSES.index(name) + 1
        except (ValueError, BrokenSample) as fault:
            skipped.add(BrokenSample("bad boxes", f"{path.name}, object {place}", str(fault)))
            continue
        left, top, right, bottom = corners
        sides = (right - left, bottom - top)
        boxes.append(
            {
                "category_id": category,
                "bbox": [left, top, *sides],
                "area": sides[0] * sides[1],
                "iscrowd": int((item.findtext("difficult") or "0").strip() == "1"),
            }
        )
    return {"height": height, "width": width}, boxes


def _corners(
    item: ElementTree.Element, size: tuple[int, int], name: str
) -> tuple[float, float, float, float]:
    """Return XYXY from 0 on, right and bottom edge exclusive; ValueError for a bad box."""
    texts = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    # Some files of VOC2012 have decimals.
    left, top, right, bottom = (float(text or "") for text in texts)
    corners, _ = check_box([left - 1, top - 1, right - left + 1, bottom - top + 1], size, name)
    return corners

"""Pictures of drawn shapes with every kind of annotation that the commands read."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 240, 320
NAMES = ("square", "triangle", "diamond", "bar")
COLOURS = ((200, 40, 40), (40, 160, 60), (50, 70, 210), (220, 180, 40))


@dataclass(frozen=True)
class DrawnData:
    """Files of COCO's and RefCOCO's formats about the same pictures.

    regions: number of annotations, the same for each of the classes `NAMES`.
    """

    folder: Path
    regions: int

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def first_image(self) -> Path:
        return self.images / file_name(1)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def file_name(image_id: int) -> str:
    return f"{image_id:012d}.png"


def draw_data(folder: Path, pictures: int) -> DrawnData:
    """Write `pictures` pictures with one shape of each class, and what is known about them."""
    for name in ("images", "panoptic"):
        (folder / name).mkdir(parents=True)
    images, instances, segments, narratives, references = [], [], [], [], []
    for image_id in range(1, pictures + 1):
        shapes = [polygon(kind, image_id) for kind in range(len(NAMES))]
        draw(folder, image_id, shapes)
        images.append(
            {"id": image_id, "file_name": file_name(image_id), "height": HEIGHT, "width": WIDTH}
        )
        records = [annotation(image_id, kind, points) for kind, points in enumerate(shapes)]
        instances += records
        parts = [{**record, "iscrowd": 0} for record in records]
        segments.append(
            {"image_id": image_id, "file_name": file_name(image_id), "segments_info": parts}
        )
        narratives.append({"image_id": image_id, "segments": narrative(image_id)})
        references += [reference(image_id, kind) for kind in range(len(NAMES))]

    categories = [
        {"id": k + 1, "name": name, "isthing": int(k < 3)} for k, name in enumerate(NAMES)
    ]
    common = {"images": images, "categories": categories}
    files = {
        "instances": {**common, "annotations": instances},
        "panoptic": {**common, "annotations": segments},
        "narratives": narratives,
        "references": references,
        "questions": [question(image_id) for image_id in range(1, pictures + 1)],
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return DrawnData(folder, len(instances))


def polygon(kind: int, image_id: int) -> list[tuple[int, int]]:
    """Corners (x, y) of a shape in its quarter of the picture."""
    place = (kind + image_id) % 4
    x, y = 20 + 160 * (place % 2) + 3 * image_id, 15 + 120 * (place // 2) + 2 * image_id
    width, height = (100, 25) if kind == 3 else (70 + 3 * kind, 70)
    middle, right, bottom = x + width // 2, x + width, y + height
    if kind == 1:
        return [(middle, y), (right, bottom), (x, bottom)]
    if kind == 2:
        return [(middle, y), (right, y + height // 2), (middle, bottom), (x, y + height // 2)]
    return [(x, y), (right, y), (right, bottom), (x, bottom)]


def draw(folder: Path, image_id: int, shapes: list[list[tuple[int, int]]]) -> None:
    """Write the picture, on noise, and the segment ids as colours of a png."""
    noise = np.random.default_rng(image_id).integers(90, 160, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture, ids = Image.fromarray(noise), Image.new("RGB", (WIDTH, HEIGHT))
    for kind, points in enumerate(shapes):
        number = segment_id(image_id, kind)
        ImageDraw.Draw(picture).polygon(points, fill=COLOURS[kind])
        ImageDraw.Draw(ids).polygon(points, fill=(number % 256, number // 256, 0))
    picture.save(folder / "images" / file_name(image_id))
    ids.save(folder / "panoptic" / file_name(image_id))


def segment_id(image_id: int, kind: int) -> int:
    return 10 * image_id + kind + 1


def annotation(image_id: int, kind: int, points: list[tuple[int, int]]) -> dict:
    x, y = zip(*points, strict=True)
    box = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
    return {
        "id": segment_id(image_id, kind),
        "image_id": image_id,
        "category_id": kind + 1,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [[value for point in points for value in point]],
    }


def narrative(image_id: int) -> list[dict]:
    """Segments of a text that names every shape."""
    found = []
    for kind, thing in enumerate(("a frog", "the two pigs", "a carrot", "a rose")):
        ids = [str(segment_id(image_id, kind))]
        found.append({"utterance": thing, "segment_ids": ids, "plural": kind == 1})
        found.append({"utterance": "at the left .", "segment_ids": [], "plural": False})
    return found


def reference(image_id: int, kind: int) -> dict:
    text = ("a frog", "the pig at the left", "a carrot", "a rose at the top")[kind]
    number = segment_id(image_id, kind)
    sentence = {"raw": text, "sent": text, "sent_id": number}
    return {
        "ref_id": number,
        "ann_id": number,
        "image_id": image_id,
        "split": "val",
        "sentences": [sentence],
    }


def question(image_id: int) -> dict:
    """A record of the Visual CoT benchmark."""
    image = file_name(image_id)
    said = [
        (
            "human",
            "<image>\nWhat is at the top ? Please provide the bounding box coordinate of it.",
        ),
        ("gpt", "[0, 1]"),
        ("human", "<image>"),
        ("gpt", "a frog"),
    ]
    return {
        "question_id": image_id,
        "image": [image, f"{image}###[20, 30, 90, 100]"],
        "conversations": [{"from": who, "value": text} for who, text in said],
    }

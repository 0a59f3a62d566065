"""JPEG files to the views that detectors train on: clim_data's stream against Pillow, as one would
write it.

One epoch of `DetectionLoader` over a folder of 640x480 JPEGs with a COCO json, one thread, as in a
worker: every picture is read, decoded, resized by a ratio between 0.1 and 2, cropped, mirrored and
padded to a square, its boxes with it. The other side does the same with Pillow and the same random
numbers.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import side_by_side as sbs
import torch
from clim_data import DetectionBatch, DetectionLoader, SampleRandom
from clim_data.pixels import JitterDraw
from clim_data.streams import StreamOptions
from pictures import jpeg_bytes
from PIL import Image
from torch import Tensor

BOXES_OF_IMAGE = 7
# Pillow smooths where it shrinks, the stream does not: single pixels differ, their mean hardly.
MEAN_TOLERANCE = 6.0
BOX_TOLERANCE = 1e-2

Size = tuple[int, int]


class Pictures:
    """A folder with JPEGs and a COCO json, which goes with the object."""

    def __init__(self, count: int, size: Size) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.images = Path(self._folder.name) / "images"
        self.images.mkdir()
        self.boxes = boxes_of(count, size)
        records = []
        for number in range(count):
            (self.images / f"{number:06d}.jpg").write_bytes(jpeg_bytes(number, *size))
            for left, top, right, bottom in self.boxes[number].tolist():
                bbox = [left, top, right - left, bottom - top]
                records.append({"id": len(records), "image_id": number, "bbox": bbox})
        self.annotations = Path(self._folder.name) / "boxes.json"
        self.annotations.write_text(json.dumps(coco(count, size, records)))


def boxes_of(count: int, size: Size) -> Tensor:
    """(count, BOXES_OF_IMAGE, 4) XYXY in pixels, the same each time."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.1, 0.5, (count, BOXES_OF_IMAGE, 2)) * (size[1], size[0])
    corner = rng.uniform(0, 1, sides.shape) * ((size[1], size[0]) - sides)
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=-1))


def coco(count: int, size: Size, records: list[dict]) -> dict:
    images = [
        {"id": i, "file_name": f"{i:06d}.jpg", "height": size[0], "width": size[1]}
        for i in range(count)
    ]
    annotations = [
        {**record, "category_id": 1, "iscrowd": 0, "area": record["bbox"][2] * record["bbox"][3]}
        for record in records
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }


class Stream:
    """One epoch of the loader, the same one in every call."""

    def __init__(self, count: int, size: Size, side: int) -> None:
        self.pictures = Pictures(count, size)
        self.loader = DetectionLoader(
            [str(self.pictures.images)],
            image_px=side,
            boxes=self.pictures.annotations,
            stream=StreamOptions(batch_size=count, shuffle=False),
        )
        self.start = self.loader.state_dict()

    def __call__(self) -> DetectionBatch:
        self.loader.load_state_dict(self.start)
        (batch,) = self.loader
        return batch


def pillow_views(count: int, size: Size, side: int) -> Callable[[], tuple[Tensor, list[Tensor]]]:
    """-> function that returns images (count, 3, side, side) and their boxes."""
    pictures = Pictures(count, size)
    files = sorted(pictures.images.iterdir())
    # As the loader draws them: by the names of folder and file.
    names = [f"{file.parent.name}/{file.name}" for file in files]
    draws = [JitterDraw.of(SampleRandom(seed=0, epoch=0).rng(name, "jitter")) for name in names]

    def call() -> tuple[Tensor, list[Tensor]]:
        images, found = [], []
        for file, boxes, draw in zip(files, pictures.boxes, draws, strict=True):
            image, moved = view(Image.open(file).convert("RGB"), boxes, draw, side)
            images.append(image)
            found.append(moved)
        return torch.stack(images), found

    return call


def view(image: Image.Image, boxes: Tensor, draw: JitterDraw, side: int) -> tuple[Tensor, Tensor]:
    """Resize, crop, mirror and pad a picture; boxes that leave the crop are dropped."""
    scale = max(int(side * draw.ratio), 1) / max(image.size)
    width, height = (max(int(edge * scale + 0.5), 1) for edge in image.size)
    moved = boxes * torch.tensor([width / image.width, height / image.height] * 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)

    spare_x, spare_y = max(width - side, 0), max(height - side, 0)
    left = min(int(draw.left * (spare_x + 1)), spare_x)
    top = min(int(draw.top * (spare_y + 1)), spare_y)
    right, bottom = min(left + side, width), min(top + side, height)
    crop = resized.crop((left, top, right, bottom))
    moved = (moved - torch.tensor([left, top] * 2)).clamp(min=0)
    moved = moved.minimum(torch.tensor([crop.width, crop.height] * 2))
    moved = moved[((moved[:, 2:] - moved[:, :2]) > 0.01).all(1)]

    if draw.flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        moved = moved[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1])
        moved = moved + torch.tensor([crop.width, 0, crop.width, 0])
    canvas = Image.new("RGB", (side, side))
    canvas.paste(crop, (0, 0))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1), moved


def same_views(ours: DetectionBatch, other: tuple[Tensor, list[Tensor]]) -> dict[str, float]:
    """Raises ValueError for other boxes, or for pixels that differ on average."""
    mean = (ours.images.float() - other[0].float()).abs().mean().item()
    if not mean <= MEAN_TOLERANCE:
        raise ValueError(f"pixels differ by {mean:.3g} grey levels on average: not the same work")
    boxes = sbs.largest_difference(torch.cat(ours.boxes), torch.cat(other[1]), BOX_TOLERANCE)
    return {
        "mean difference in grey levels": mean,
        "largest difference of boxes in pixels": boxes["largest difference"],
    }


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=15, threads=1)
    parser.add_argument("--images", type=int, default=16, help="images of an epoch")
    parser.add_argument(
        "--source-px", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--image-px", type=int, default=640)
    args = parser.parse_args(argv)
    size, sides = tuple(args.source_px), (args.images, tuple(args.source_px), args.image_px)
    comparison = sbs.Comparison(
        name="views",
        sizes=f"{args.images} JPEGs of {size[1]}x{size[0]} px, each to {args.image_px} px",
        ours=sbs.Candidate("clim_data", partial(Stream, *sides)),
        other=sbs.Candidate("Pillow", partial(pillow_views, *sides)),
        agree=same_views,
        target=2,
        items=args.images,
        item="image",
    )
    return sbs.run("detection_stream", [comparison], sbs.settings_from(args))


if __name__ == "__main__":
    main()

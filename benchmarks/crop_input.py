"""JPEG files to letterboxed squares and crops of their regions: clim_data against plain Pillow, as
one would write it.

Two comparisons on one batch of 640x480 JPEGs, one thread, as in a worker of `CropLoader`. Both
sides decode an image once, and make the same square and the same crops (bicubic, letterboxed) of
the same regions:

grid            cells of a random grid of each image, 20 at most
proposals       20 boxes of each image, crops 1.5 times as large
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO

import numpy as np
import side_by_side as sbs
import torch
from clim_data import CropBatch, SampleRandom
from clim_data.matching import BoxTable
from clim_data.pixels import crop_window, draw_cells, draw_order, open_image
from clim_data.sources import RawSample
from clim_data.streams import CropBuilder, CropRules
from pictures import jpeg_bytes
from PIL import Image
from torch import Tensor

DRAW = SampleRandom(seed=0, epoch=0)
MAX_CELLS = 20
CONTEXT = 1.5
TOLERANCE = 4  # grey levels, of single pixels: both round between their two passes
Size = tuple[int, int]


def samples(count: int, size: Size) -> list[RawSample]:
    return [
        RawSample(f"bench/{i}", str(i), jpeg_bytes(i, *size), None, None, number=i)
        for i in range(count)
    ]


def proposals(count: int, size: Size) -> BoxTable:
    """20 boxes an image, from an eighth of its sides to all of them."""
    height, width = size
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.125, 1, (count * MAX_CELLS, 2)) * (width, height)
    corner = rng.uniform(0, 1, sides.shape) * ((width, height) - sides)
    return BoxTable(
        boxes=np.concatenate([corner, corner + sides], axis=1),
        labels=np.full(len(sides), -1),
        starts=np.arange(count + 1) * MAX_CELLS,
        sizes=np.array([size] * count),
        class_names=(),
        images=tuple((i, f"{i}.jpg") for i in range(count)),
    )


def clim_crops(
    count: int, size: Size, px: tuple[int, int], table: BoxTable | None
) -> Callable[[], CropBatch]:
    build = CropBuilder(
        image_px=px[0],
        crop_px=px[1],
        table=table,
        rules=CropRules(max_cells=MAX_CELLS, context=CONTEXT),
        scales=(),
        background="white",
        max_pixels=None,
    )
    batch = samples(count, size)
    return lambda: build(batch, DRAW)[0]


def pillow_crops(
    count: int, size: Size, px: tuple[int, int], table: BoxTable | None
) -> Callable[[], list[Tensor]]:
    """-> function that returns the squares and the crops; the windows are those of the other
    side."""
    batch = samples(count, size)
    windows = [windows_of(sample, size, table) for sample in batch]

    def call() -> list[Tensor]:
        squares, crops = [], []
        for sample, cuts in zip(batch, windows, strict=True):
            image = Image.open(BytesIO(sample.image)).convert("RGB")
            squares.append(square(image, px[0], centred=False))
            crops += [square(image.crop(window), px[1], centred=True) for window in cuts]
        return [torch.stack(squares), torch.stack(crops)]

    return call


def windows_of(sample: RawSample, size: Size, table: BoxTable | None) -> list[tuple[float, ...]]:
    """What `CropBuilder` draws for the sample: XYXY in pixels."""
    rng = DRAW.rng(sample.name, "regions")
    if table is None:
        cells = draw_cells(rng, 6, MAX_CELLS) * torch.tensor([size[1], size[0]] * 2)
        return [tuple(cell) for cell in cells.tolist()]
    boxes, _, _ = table.of_image(sample, open_image(sample.image, sample.name))
    return [crop_window(box, size, CONTEXT) for box in boxes[draw_order(rng, len(boxes))].tolist()]


def square(image: Image.Image, side: int, *, centred: bool) -> Tensor:
    """Longest side to `side`, on black: uint8 (3, side, side)."""
    scale = side / max(image.size)
    resized = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    canvas = Image.new("RGB", (side, side))
    canvas.paste(
        resized, ((side - resized.width) // 2, (side - resized.height) // 2) if centred else (0, 0)
    )
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def same_pixels(ours: CropBatch, other: Sequence[Tensor]) -> dict[str, float]:
    found = {}
    for name, mine, theirs in zip(
        ("images", "crops"), (ours.images, ours.crops), other, strict=True
    ):
        found[name] = sbs.largest_difference(mine, theirs, TOLERANCE)["largest difference"]
    return {f"largest difference of {name} in grey levels": value for name, value in found.items()}


def comparisons(count: int, size: Size, px: tuple[int, int]) -> list[sbs.Comparison]:
    made = []
    for name, table in (("grid", None), ("proposals", proposals(count, size))):
        crops = sum(len(windows_of(sample, size, table)) for sample in samples(count, size))
        made.append(
            sbs.Comparison(
                name=name,
                sizes=f"{count} JPEGs of {size[1]}x{size[0]} px, each to {px[0]} px, {crops} crops of {px[1]} px",
                ours=sbs.Candidate("clim_data", partial(clim_crops, count, size, px, table)),
                other=sbs.Candidate("Pillow", partial(pillow_crops, count, size, px, table)),
                agree=same_pixels,
                items=count,
                item="image",
            )
        )
    return made


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=15, threads=1)
    parser.add_argument("--images", type=int, default=8, help="images of the batch")
    parser.add_argument(
        "--source-px", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--image-px", type=int, default=1024)
    parser.add_argument("--crop-px", type=int, default=224)
    args = parser.parse_args(argv)
    made = comparisons(args.images, tuple(args.source_px), (args.image_px, args.crop_px))
    return sbs.run("crop_input", made, sbs.settings_from(args))


if __name__ == "__main__":
    main()

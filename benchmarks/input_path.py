"""JPEG files to mosaics and to letterboxed squares: clim_data against plain Pillow, as one would
write it.

Three comparisons on one batch of 640x480 JPEGs, one thread, as in a worker of a data loader:

tiles           `build_batch` (DCT-scaled decode, one resize straight into the tile) against Pillow's decode,
                crop, bicubic resize to 224 px, paste, and bicubic resize of each mosaic to the
                canvas
tiles-224       the same with `tile_source_px=224`: both sides compute the same mosaics
letterbox       `decode_rgb` and `letterbox` against Pillow's decode, bicubic resize, and paste on black
"""

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from io import BytesIO

import numpy as np
import side_by_side as sbs
import torch
from clim_data import MosaicConfig, SampleRandom, build_batch, decode_rgb, plan_mosaics
from clim_data.pixels import letterbox, sample_crop_window
from clim_data.sources import RawSample
from pictures import jpeg_bytes
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

DRAW = SampleRandom(seed=0, epoch=0)
PAPER_TILE_PX = 224
MEAN_TOLERANCE = 2  # grey levels, mean of what is left when detail of 8 px is averaged away
LETTERBOX_TOLERANCE = 2  # grey levels; both round between their two passes


@cache
def samples(count: int, height: int, width: int) -> tuple[RawSample, ...]:
    """What a shard holds: encoded images, each with a caption of its own."""

    def one(i: int) -> RawSample:
        meta = json.dumps({"captions": [f"photo number {i}"]}).encode()
        return RawSample(f"bench/{i:06d}", f"{i:06d}", jpeg_bytes(i, height, width), None, meta)

    return tuple(one(i) for i in range(count))


def clim_tiles(count: int, size: tuple[int, int], config: MosaicConfig) -> Callable[[], Tensor]:
    """-> function that returns (M, 3, canvas, canvas) uint8."""
    batch = samples(count, *size)

    def call() -> Tensor:
        return build_batch(batch, DRAW, config)[0].mosaics

    return call


def pillow_tiles(count: int, size: tuple[int, int], config: MosaicConfig) -> Callable[[], Tensor]:
    """The recipe of the paper with Pillow alone; the crop windows are those of the other side."""
    batch = samples(count, *size)
    plan = plan_mosaics(count, config)

    def tile(sample: RawSample) -> Image.Image:
        image = Image.open(BytesIO(sample.image)).convert("RGB")
        rng = DRAW.rng(sample.name, "crop")
        window = sample_crop_window(
            (image.height, image.width), rng, scale=config.crop_scale, ratio=config.crop_ratio
        )
        return image.crop(window).resize((PAPER_TILE_PX, PAPER_TILE_PX), Image.Resampling.BICUBIC)

    def call() -> Tensor:
        mosaics, start = [], 0
        for side in plan.sides:
            stitched = Image.new("RGB", (side * PAPER_TILE_PX, side * PAPER_TILE_PX))
            for i in range(side * side):
                row, column = divmod(i, side)
                stitched.paste(
                    tile(batch[start + i]), (column * PAPER_TILE_PX, row * PAPER_TILE_PX)
                )
            start += side * side
            canvas = stitched.resize((config.canvas_px, config.canvas_px), Image.Resampling.BICUBIC)
            mosaics.append(torch.from_numpy(np.array(canvas)).permute(2, 0, 1))
        return torch.stack(mosaics)

    return call


def clim_letterbox(count: int, size: tuple[int, int], image_px: int) -> Callable[[], Tensor]:
    """-> function that returns (B, 3, image_px, image_px) uint8, each image copied into the batch
    as a loader does."""
    return _into_batch(
        count, size, image_px, lambda sample: letterbox(decode_rgb(sample.image), image_px)
    )


def pillow_letterbox(count: int, size: tuple[int, int], image_px: int) -> Callable[[], Tensor]:
    def one(sample: RawSample) -> Tensor:
        image = Image.open(BytesIO(sample.image)).convert("RGB")
        scale = image_px / max(image.size)
        resized = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
        square = Image.new("RGB", (image_px, image_px))
        square.paste(resized, (0, 0))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    return _into_batch(count, size, image_px, one)


def _into_batch(
    count: int, size: tuple[int, int], image_px: int, one: Callable[[RawSample], Tensor]
) -> Callable[[], Tensor]:
    files = samples(count, *size)
    # One batch, used again in each call: else a third of the time is the kernel's, which maps its
    # pages anew.
    batch = torch.zeros(count, image_px, image_px, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    def call() -> Tensor:
        for target, sample in zip(batch, files, strict=True):
            target.copy_(one(sample))
        return batch

    return call


def mean_difference(ours: Tensor, other: Tensor, tolerance: float) -> dict[str, float]:
    """Mean absolute difference in grey levels of all pixels, and of cells of 8x8 px.

    Tiles that went through 224 px lack the detail of those that were resized once, so only the
    cells are compared. Raises ValueError if the mosaics are not of the same images.
    """
    if ours.shape != other.shape:
        raise ValueError(
            f"mosaics have shapes {tuple(ours.shape)} and {tuple(other.shape)}: not the same work"
        )
    difference = ours.float() - other.float()
    cells = avg_pool2d(difference, 8).abs().mean().item()
    if cells > tolerance:
        raise ValueError(
            f"8x8 px cells differ by {cells:.2f} grey levels on average: not the same work"
        )
    return {
        "mean difference in grey levels": difference.abs().mean().item(),
        "of 8x8 px cells": cells,
    }


def same_squares(ours: Tensor, other: Tensor) -> dict[str, float]:
    found = sbs.largest_difference(ours, other, LETTERBOX_TOLERANCE)
    return {f"{key} in grey levels": value for key, value in found.items()}


def comparisons(images: int, size: tuple[int, int], canvas_px: int) -> list[sbs.Comparison]:
    height, width = size
    kilobytes = sum(len(sample.image) for sample in samples(images, *size)) / images / 1000
    files = f"{images} JPEGs of {width}x{height} px, {kilobytes:.0f} kB each"
    plan = plan_mosaics(images, MosaicConfig(canvas_px=canvas_px))
    canvases = " + ".join(f"{side}x{side}" for side in plan.sides)
    made = []
    for name, source_px, target in (("tiles", None, 1.5), ("tiles-224", PAPER_TILE_PX, None)):
        config = MosaicConfig(canvas_px=canvas_px, tile_source_px=source_px)
        made.append(
            sbs.Comparison(
                name=name,
                sizes=f"{files}, to {canvases} mosaics of {canvas_px} px",
                ours=sbs.Candidate("clim_data", partial(clim_tiles, images, size, config)),
                other=sbs.Candidate("Pillow", partial(pillow_tiles, images, size, config)),
                agree=partial(mean_difference, tolerance=MEAN_TOLERANCE),
                target=target,
                items=plan.num_tiles,
                item="image",
            )
        )
    made.append(
        sbs.Comparison(
            name="letterbox",
            sizes=f"{files}, each to {canvas_px} px, copied into a batch",
            ours=sbs.Candidate("clim_data", partial(clim_letterbox, images, size, canvas_px)),
            other=sbs.Candidate("Pillow", partial(pillow_letterbox, images, size, canvas_px)),
            agree=same_squares,
            target=3.0,
            items=images,
            item="image",
        )
    )
    return made


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=15, threads=1)
    parser.add_argument("--images", type=int, default=29, help="images of the batch")
    parser.add_argument(
        "--source-px", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--canvas-px", type=int, default=1024)
    args = parser.parse_args(argv)
    made = comparisons(args.images, tuple(args.source_px), args.canvas_px)
    return sbs.run("input_path", made, sbs.settings_from(args))


if __name__ == "__main__":
    main()

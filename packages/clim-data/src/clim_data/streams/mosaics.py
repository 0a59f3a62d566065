"""The layout of a batch as mosaics: the place and size of each image, and the assembly."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from clim_data.pixels.transforms import resize
from clim_data.streams.batches import TensorBatch


@dataclass(frozen=True)
class MosaicConfig:
    """Layout of the mosaics of a batch.

    Args:
        canvas_px: side of a mosaic in pixels.
        single_px: side of an image that stays single.
        mix: number of mosaics of each side in a group, e.g. {2: 1, 3: 1, 4: 1} uses 4 + 9 + 16 = 29
            images; {} makes no mosaics at all.
        min_singles: smallest number of images of a batch that stay single.
        tile_source_px: None decodes every image straight into its tile. A number reproduces the
            paper (arXiv 2312.11376 used 224): tiles of that many pixels, the whole mosaic then
            enlarged to the canvas.
        crop_scale, crop_ratio: area share and aspect ratio of the random resized crop of each
            image.

    Raises:
        ValueError: an option is out of range.
    """

    canvas_px: int = 1024
    single_px: int = 224
    mix: dict[int, int] = field(default_factory=lambda: {2: 1, 3: 1, 4: 1})
    min_singles: int = 0
    tile_source_px: int | None = None
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for side, count in self.mix.items():
            if not (_whole(side) and side >= 2 and _whole(count) and count >= 0):
                raise ValueError(
                    f"mix={self.mix!r}: {side!r}: {count!r} is not legal; "
                    "use whole sides of 2 or more and counts of 0 or more"
                )
        lowest = max([side for side, count in self.mix.items() if count] + [1])
        if not _whole(self.canvas_px) or self.canvas_px < lowest:
            raise ValueError(
                f"canvas_px={self.canvas_px!r} must be a whole number of at least {lowest} pixels"
            )
        if not _whole(self.single_px) or self.single_px < 1:
            raise ValueError(
                f"single_px={self.single_px!r} must be a whole number of at least 1 pixel"
            )
        if not _whole(self.min_singles) or self.min_singles < 0:
            raise ValueError(
                f"min_singles={self.min_singles!r} must be a whole number of at least 0"
            )
        if self.tile_source_px is not None and (
            not _whole(self.tile_source_px) or self.tile_source_px < 1
        ):
            raise ValueError(
                f"tile_source_px={self.tile_source_px!r} must be None or a whole number of at "
                "least 1 pixel"
            )
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale={self.crop_scale!r} must be (low, high) with 0 < low <= high <= 1"
            )
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ValueError(
                f"crop_ratio={self.crop_ratio!r} must be (low, high) with 0 < low <= high"
            )

    @property
    def group_size(self) -> int:
        """Number of images in one group of mosaics (29 for the default mix)."""
        return sum(side * side * count for side, count in self.mix.items())


@dataclass(frozen=True)
class MosaicPlan:
    """The layout of the n images of a batch: `sides` has one entry for each mosaic, ascending; the
    rest stay single.

    Images keep their order: the tiles of the first mosaic row by row, of the second, ..., then the
    singles.
    """

    sides: tuple[int, ...]
    num_singles: int

    @property
    def num_tiles(self) -> int:
        return sum(side * side for side in self.sides)

    def tile_sizes(self, config: MosaicConfig) -> list[tuple[int, int]]:
        """Return (height, width) in pixels that each of the n images is decoded to."""
        sizes: list[tuple[int, int]] = []
        for side in self.sides:
            if config.tile_source_px is not None:
                sizes += [(config.tile_source_px, config.tile_source_px)] * (side * side)
            else:
                edges = cell_edges(config.canvas_px, side)
                lengths = [end - start for start, end in pairwise(edges)]
                sizes += [(h, w) for h in lengths for w in lengths]
        return sizes + [(config.single_px, config.single_px)] * self.num_singles

    def boxes(self, config: MosaicConfig) -> list[Tensor]:
        """Return the true extent of every tile: a (side * side, 4) tensor per mosaic.

        Boxes are XYXY in [0, 1] of the canvas.
        """
        return [tile_boxes(side, config) for side in self.sides]


def plan_mosaics(n: int, config: MosaicConfig) -> MosaicPlan:
    """Lay out `n` images: as many whole groups as fit, the rest single (arXiv 2312.11376, section
    3.2).

    With g groups there are g * mix[s] mosaics of each side s, all of the smallest side first. When
    `n` is too small for one group, the sides that fit are used, largest first, each at most mix[s]
    times: 28 images give a 4x4, a 3x3 and three singles; 3 images give three singles.
    `config.min_singles` images are set aside before.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"n={n} must be the number of images in the batch, 0 or more")
    free = max(0, n - config.min_singles)
    counts = dict.fromkeys(config.mix, 0)
    if config.group_size and free >= config.group_size:
        groups = free // config.group_size
        counts = {side: groups * count for side, count in config.mix.items()}
    else:
        for side in sorted(config.mix, reverse=True):
            counts[side] = min(config.mix[side], free // (side * side))
            free -= counts[side] * side * side
    sides = tuple(side for side in sorted(counts) for _ in range(counts[side]))
    return MosaicPlan(sides, n - sum(side * side for side in sides))


def cell_edges(canvas_px: int, side: int) -> list[int]:
    """Return the side + 1 positions that cut a canvas into `side` cells of equal length.

    Positions are whole pixels, so cells may differ by one.
    """
    return [(2 * canvas_px * i + side) // (2 * side) for i in range(side + 1)]


def tile_boxes(side: int, config: MosaicConfig) -> Tensor:
    """Return the boxes of the tiles of one mosaic, row by row: (side * side, 4).

    Boxes are XYXY in [0, 1] of the canvas.
    """
    if config.tile_source_px is not None:
        edges = [i / side for i in range(side + 1)]  # equal tiles, enlarged together
    else:
        edges = [edge / config.canvas_px for edge in cell_edges(config.canvas_px, side)]
    spans = list(pairwise(edges))
    return torch.tensor(
        [[x0, y0, x1, y1] for y0, y1 in spans for x0, x1 in spans], dtype=torch.float32
    )


def stitch_tiles(tiles: Sequence[Tensor] | Tensor, side: int) -> Tensor:
    """Join side * side tiles (C, h, w), row by row, into one picture (C, sum of h, sum of w)."""
    rows = [torch.cat(list(tiles[r * side : (r + 1) * side]), dim=-1) for r in range(side)]
    return torch.cat(rows, dim=-2)


def assemble_mosaics(
    tiles: Sequence[Tensor] | Tensor, plan: MosaicPlan, config: MosaicConfig
) -> Tensor:
    """Put the planned tiles together: (M, C, canvas, canvas), dtype of the tiles, channels-last in
    memory.

    With `config.tile_source_px` the tiles have one common size and each stitched mosaic is resized
    to the canvas, bicubic without antialias; without it every tile has the size of its cell and is
    copied.

    Args:
        tiles: at least `plan.num_tiles` tensors (C, h, w) in plan order; later ones (the singles)
            are not used.

    Raises:
        ValueError: there are fewer tiles than the plan needs.
    """
    if len(tiles) < plan.num_tiles:
        raise ValueError(
            f"the plan needs {plan.num_tiles} tiles, got {len(tiles)}: plan for the images you have"
        )
    canvas = config.canvas_px
    like = tiles[0] if len(tiles) else torch.empty(3, 0, 0, dtype=torch.uint8)
    mosaics = like.new_empty(len(plan.sides), canvas, canvas, like.shape[0]).permute(0, 3, 1, 2)
    start = 0
    for mosaic, side in zip(mosaics, plan.sides):
        members = tiles[start : start + side * side]
        start += side * side
        if config.tile_source_px is not None:
            stitched = stitch_tiles(members, side)
            mosaic.copy_(resize(stitched, (canvas, canvas), antialias=False))
            continue
        edges = cell_edges(canvas, side)
        for i, tile in enumerate(members):
            row, column = divmod(i, side)
            mosaic[:, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = tile
    return mosaics


@dataclass(frozen=True)
class MosaicBatch(TensorBatch):
    """One training batch.

    mosaics: uint8 (M, 3, P, P), channels-last in memory; singles: uint8 (S, 3, p, p), likewise.
    boxes: M tensors (n_i, 4), XYXY in [0, 1] of the canvas.
    captions, keys: one for each tile, mosaic by mosaic and row by row, then one for each single.
    """

    mosaics: Tensor
    boxes: list[Tensor]
    singles: Tensor
    captions: list[str]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

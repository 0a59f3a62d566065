"""Mean features of 100 masks per image: `pool_masks` in one matrix product against a loop over the
masks.

Two loops, as people write them: selecting the positions of each mask (`map[:, mask].mean(1)`), and
multiplying the map by each mask.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
from clim_models import pool_masks
from torch import Tensor

TOLERANCE = 1e-4  # means of unit-normal features; sums in another order


def random_map(batch: int, channels: int, grid: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, grid, grid, generator=generator).to(device)


def random_masks(batch: int, count: int, grid: int, device: str) -> list[Tensor]:
    """`batch` tensors (count, grid, grid) bool: ellipses from one cell to most of the map, small
    ones most often."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(grid) + 0.5, torch.arange(grid) + 0.5, indexing="ij")
    centre = torch.rand(batch, count, 2, generator=generator) * grid
    radius = grid / 2 * 10 ** (-1.3 * torch.rand(batch, count, 2, generator=generator))
    down = (y - centre[..., 0, None, None]) / radius[..., 0, None, None]
    across = (x - centre[..., 1, None, None]) / radius[..., 1, None, None]
    masks = down**2 + across**2 < 1  # (B, count, grid, grid)
    cell = centre.long().clamp(max=grid - 1)
    images, numbers = torch.meshgrid(torch.arange(batch), torch.arange(count), indexing="ij")
    masks[images, numbers, cell[..., 0], cell[..., 1]] = True
    return list(masks.to(device))


def together(
    batch: int, channels: int, grid: int, *, count: int, device: str
) -> Callable[[], Tensor]:
    """-> function that returns (B * count, C)."""
    feature_map, masks = (
        random_map(batch, channels, grid, device),
        random_masks(batch, count, grid, device),
    )
    return lambda: pool_masks(feature_map, masks)


def loop_selecting(
    batch: int, channels: int, grid: int, *, count: int, device: str
) -> Callable[[], Tensor]:
    feature_map, masks = (
        random_map(batch, channels, grid, device),
        random_masks(batch, count, grid, device),
    )
    return lambda: torch.stack(
        [
            features[:, mask].mean(dim=1)
            for features, of_image in zip(feature_map, masks, strict=True)
            for mask in of_image
        ]
    )


def loop_multiplying(
    batch: int, channels: int, grid: int, *, count: int, device: str
) -> Callable[[], Tensor]:
    feature_map, masks = (
        random_map(batch, channels, grid, device),
        random_masks(batch, count, grid, device),
    )
    return lambda: torch.stack(
        [
            (features * mask).sum(dim=(1, 2)) / mask.sum()
            for features, of_image in zip(feature_map, masks, strict=True)
            for mask in of_image
        ]
    )


def comparisons(args) -> list[sbs.Comparison]:
    sizes = (args.batch, args.channels, args.grid)
    options = {"count": args.masks, "device": args.device}
    loops = {"selecting loop": loop_selecting, "multiplying loop": loop_multiplying}
    return [
        sbs.Comparison(
            name=name,
            sizes=f"{args.batch} images, {args.masks} masks each, {args.grid}x{args.grid} map of {args.channels}",
            ours=sbs.Candidate("pool_masks", partial(together, *sizes, **options)),
            other=sbs.Candidate(name, partial(loop, *sizes, **options)),
            agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
            items=args.batch * args.masks,
            item="mask",
        )
        for name, loop in loops.items()
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=7)
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--masks", type=int, default=100, help="masks per image")
    parser.add_argument("--grid", type=int, default=64, help="side of the feature map")
    parser.add_argument("--channels", type=int, default=512)
    args = parser.parse_args(argv)
    return sbs.run("mask_pooling", comparisons(args), sbs.settings_from(args))


if __name__ == "__main__":
    main()

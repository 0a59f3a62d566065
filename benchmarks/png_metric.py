"""Panoptic narrative grounding scores: average recall in closed form against a sweep over 100,000
thresholds.

Second comparison: overlaps of all masks of an image in one call against one mask at a time, with
`.item()` for each.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
from clim_eval import average_recall, mask_overlaps
from clim_eval.metrics import ORIGINAL_STEP
from torch import Tensor

TOLERANCE = 1e-6  # the sweep adds 100,000 rounded products


def random_ious(phrases: int) -> Tensor:
    """float32 (phrases,) in [0, 1], a fifth of them 0 as missed phrases are."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(phrases, generator=generator)
    return torch.where(torch.rand(phrases, generator=generator) < 0.2, torch.zeros(()), values)


def closed_form(phrases: int, step: float) -> Callable[[], Tensor]:
    values = random_ious(phrases).numpy()
    return lambda: torch.tensor(average_recall(values, step=step), dtype=torch.float64)


def sweep(phrases: int, step: float) -> Callable[[], Tensor]:
    """Recall at every threshold, then the left Riemann sum under that curve."""
    values = random_ious(phrases)
    thresholds = torch.arange(0, 1, step, dtype=torch.float64)

    def run() -> Tensor:
        recall = torch.tensor(
            [(values >= t).double().mean().item() for t in thresholds.tolist()], dtype=torch.float64
        )
        return (recall[:-1] * thresholds.diff()).sum()

    return run


def random_masks(
    images: int, phrases: int, size: tuple[int, int], device: str
) -> list[tuple[Tensor, Tensor]]:
    """(logits (N, H, W), masks (N, H, W) bool) of every image: blobs, and the same blobs moved."""
    generator = torch.Generator().manual_seed(1)
    pairs = []
    for _ in range(images):
        coarse = torch.randn(1, phrases, 12, 16, generator=generator)
        logits = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0]
        pairs.append((logits.to(device), (logits.roll(9, -1) > 0).to(device)))
    return pairs


def in_one_call(
    images: int, phrases: int, size: tuple[int, int], *, device: str
) -> Callable[[], Tensor]:
    """-> function that returns float64 (images * phrases,)."""
    pairs = random_masks(images, phrases, size, device)

    def run() -> Tensor:
        counts = [mask_overlaps(logits, masks) for logits, masks in pairs]
        return torch.cat([c.intersections / c.unions.clamp(min=1) for c in counts]).double()

    return run


def one_by_one(
    images: int, phrases: int, size: tuple[int, int], *, device: str
) -> Callable[[], Tensor]:
    pairs = random_masks(images, phrases, size, device)

    def run() -> Tensor:
        values = []
        for logits, masks in pairs:
            for logit, mask in zip(logits, masks, strict=True):
                shares = torch.nn.functional.interpolate(
                    logit.sigmoid()[None, None], mask.shape, mode="bilinear"
                )[0, 0]
                predicted, true = (shares > 0.5).float(), mask.float()
                shared = (predicted * true).sum()
                values.append((shared / (predicted.sum() + true.sum() - shared + 1e-12)).item())
        return torch.tensor(values, dtype=torch.float64)

    return run


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=5, threads=1)
    parser.add_argument("--phrases", type=int, default=40000, help="IoUs of the average recall")
    parser.add_argument("--step", type=float, default=ORIGINAL_STEP, help="between thresholds")
    parser.add_argument("--images", type=int, default=8, help="images of the overlaps")
    parser.add_argument("--image-phrases", type=int, default=12, help="phrases of an image")
    parser.add_argument("--image-px", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    args = parser.parse_args(argv)
    settings = sbs.settings_from(args)
    agree = partial(sbs.largest_difference, tolerance=TOLERANCE)
    height, width = args.image_px
    sizes = (args.images, args.image_phrases, (height, width))
    comparisons = [
        sbs.Comparison(
            "average recall",
            f"{args.phrases:,} phrases, {round(1 / args.step):,} thresholds",
            ours=sbs.Candidate("closed form", partial(closed_form, args.phrases, args.step)),
            other=sbs.Candidate("sweep", partial(sweep, args.phrases, args.step)),
            agree=agree,
            items=args.phrases,
            item="phrase",
        ),
        sbs.Comparison(
            "overlaps",
            f"{args.images} images of {height}x{width} px, {args.image_phrases} phrases each",
            ours=sbs.Candidate("one call", partial(in_one_call, *sizes, device=args.device)),
            other=sbs.Candidate("one by one", partial(one_by_one, *sizes, device=args.device)),
            agree=agree,
            items=args.images * args.image_phrases,
            item="phrase",
        ),
    ]
    return sbs.run("png_metric", comparisons, settings)


if __name__ == "__main__":
    main()

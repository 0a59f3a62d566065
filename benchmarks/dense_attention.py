"""Dense features of EVA02-B-16 at 1024 px: fused attention, as RegionModel runs it, against unfused
attention.

Both sides are the same model with the same random weights and images. The other side is timm's own
unfused path (`fused_attn = False` in each attention module): a T x T matrix of scores, softmax and
weighted sum as three operations.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
from clim_models import RegionModel, create_model
from torch import Tensor

# Unit-length features; the two paths add up in another order.
TOLERANCE = {"fp32": 2e-4, "bf16": 5e-2}


def random_model(name: str, precision: str, device: str) -> RegionModel:
    """The architecture with random weights, the same each time; what they are does not change the
    work."""
    torch.manual_seed(0)
    return create_model(name, precision=precision, device=device)


def random_pixels(model: RegionModel, batch: int, image_px: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(
        0, 256, (batch, 3, image_px, image_px), generator=generator, dtype=torch.uint8
    )
    return model.normalize_pixels(pixels)


def set_fused(model: RegionModel, fused: bool) -> None:
    """Choose timm's attention kernel in every block. Raises ValueError for a tower that has no such
    choice."""
    attentions = [m for m in model.visual.modules() if hasattr(m, "fused_attn")]
    if not attentions:
        raise ValueError(
            f"{model.name} has no attention of timm: choose an EVA02 model or another tower of timm"
        )
    for attention in attentions:
        attention.fused_attn = fused


def encoder(
    name: str, batch: int, image_px: int, *, fused: bool, precision: str, device: str
) -> Callable[[], Tensor]:
    """-> function that returns (B, C, h, w) dense features."""
    model = random_model(name, precision, device)
    set_fused(model, fused)
    images = random_pixels(model, batch, image_px)

    @torch.no_grad()
    def call() -> Tensor:
        return model.encode_dense(images)

    return call


def comparison(args) -> sbs.Comparison:
    build = partial(
        encoder, args.model, args.batch, args.image_px, precision=args.precision, device=args.device
    )
    return sbs.Comparison(
        name="encode_dense",
        sizes=f"{args.model}, {args.batch} x {args.image_px} px, {args.precision}",
        ours=sbs.Candidate("fused attention", partial(build, fused=True)),
        other=sbs.Candidate("unfused attention", partial(build, fused=False)),
        agree=partial(sbs.largest_difference, tolerance=TOLERANCE[args.precision]),
        memory_target=1 / 3,
        items=args.batch,
        item="image",
    )


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    parser.add_argument("--model", default="EVA02-B-16", help="open_clip name with a tower of timm")
    parser.add_argument("--image-px", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=sorted(TOLERANCE), default="fp32")
    args = parser.parse_args(argv)
    return sbs.run("dense_attention", [comparison(args)], sbs.settings_from(args))


if __name__ == "__main__":
    main()

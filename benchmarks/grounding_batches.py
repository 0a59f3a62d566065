"""Phrases of several images grounded in one call against one call for each image.

One call pads the texts of all images to one batch of the LMM, and embeds the images together. The
images have different shapes. All weights are random; sizes are those of `grounding_epoch.py`, but
smaller by default, since a batch gains most where a pass leaves the machine idle.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import side_by_side as sbs
import torch
from flmm import ground_phrases
from grounding_epoch import by, grounded
from PIL import Image
from torch import Tensor

PHRASES = ("a dog", "a tree left of a dog", "a tree")
# Sums of the same numbers in another order; logits reach some tens.
TOLERANCE = 1e-3


def pictures(args) -> list[Image.Image]:
    """Noise, wide and tall in turn."""
    noise = np.random.default_rng(0)
    height, width = args.image_px
    shapes = ((height, width, 3), (width, height, 3))
    made = []
    for number in range(args.images):
        pixels = noise.integers(0, 255, shapes[number % 2], dtype=np.uint8)
        made.append(Image.fromarray(pixels))
    return made


def call(args, *, batch_size: int) -> Callable[[], Tensor]:
    """Make the function that grounds all images, `batch_size` of them at once."""
    model, images = grounded(args).eval(), pictures(args)
    phrases = PHRASES[: args.phrases]

    def ground() -> Tensor:
        if batch_size > 1:
            found = ground_phrases(model, images, phrases, batch_size=batch_size)
        else:
            found = [ground_phrases(model, image, phrases) for image in images]
        return torch.cat([masks.refined.flatten() for masks in found])

    return ground


def comparisons(args) -> list[sbs.Comparison]:
    height, width = args.image_px
    return [
        sbs.Comparison(
            name="images at once",
            sizes=f"{args.images} images of {width}x{height} and {height}x{width} px, "
            f"{args.phrases} phrases each; width x layers: CLIP {by(args.tower)} at 336 px, Llama "
            f"{by(args.llama)}, SAM encoder {by(args.sam)} at {args.sam_px} px; U-Net of base "
            f"{args.base}, fp32",
            ours=sbs.Candidate(
                f"{args.images} at once", partial(call, args, batch_size=args.images)
            ),
            other=sbs.Candidate("one by one", partial(call, args, batch_size=1)),
            agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
            items=args.images,
            item="image",
        )
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=5)
    three = {"type": int, "nargs": 3, "metavar": ("WIDTH", "LAYERS", "HEADS")}
    parser.add_argument("--images", type=int, default=8, help="images of a call, at least 2")
    parser.add_argument("--phrases", type=int, default=3, help="phrases of an image, at most 3")
    parser.add_argument(
        "--image-px", type=int, nargs=2, default=[240, 320], help="height and width of the images"
    )
    parser.add_argument("--tower", **three, default=[192, 6, 6], help="the LMM's image tower")
    parser.add_argument("--llama", **three, default=[256, 6, 8], help="the LMM's language model")
    parser.add_argument("--sam", **three, default=[96, 4, 4], help="SAM's image encoder")
    parser.add_argument("--sam-px", type=int, default=256, help="side of SAM's own square")
    parser.add_argument(
        "--base", type=int, default=16, help="channels of the mask head's first stage"
    )
    args = parser.parse_args(argv)
    return sbs.run("grounding_batches", comparisons(args), sbs.settings_from(args))


if __name__ == "__main__":
    main()

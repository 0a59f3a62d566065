"""Texts of ten words through a causal text tower: the columns that hold words, beside all 77.

Both sides are the same model with the same random weights and token ids. The other side is
open_clip's own `encode_text`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
from clim_models import create_model
from torch import Tensor

WORDS = ["a", "photo", "of", "a", "red", "car", "behind", "a", "small", "old", "dog"]
# Unit-length features; sums have another order where matrices have another shape.
TOLERANCE = 2e-5


def encoder(name: str, texts: int, *, cut: bool, backward: bool, device: str) -> Callable:
    """-> function that returns (N, C) unit features, or their gradient with `backward`."""
    torch.manual_seed(0)
    model = create_model(name, device=device)
    captions = [" ".join(WORDS[i % 3 :] + WORDS[: i % 3][:-1]) for i in range(texts)]
    ids = model.tokenizer(captions)

    def encode() -> Tensor:
        if cut:
            return model.encode_text(ids)
        return model.clip.encode_text(ids.to(device), normalize=True)

    def with_gradient() -> Tensor:
        model.zero_grad()
        encode()[:, 0].sum().backward()
        return model.clip.get_submodule("ln_final").weight.grad.clone()

    return with_gradient if backward else torch.no_grad()(encode)


def comparison(args, *, backward: bool) -> sbs.Comparison:
    build = partial(encoder, args.model, args.texts, backward=backward, device=args.device)
    return sbs.Comparison(
        name="encode_text with gradients" if backward else "encode_text",
        sizes=f"{args.model}, {args.texts} texts of about 10 words, fp32",
        ours=sbs.Candidate("columns with words", partial(build, cut=True)),
        other=sbs.Candidate("all columns", partial(build, cut=False)),
        agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
        target=2,
        items=args.texts,
        item="text",
    )


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    parser.add_argument("--model", default="ViT-B-32", help="open_clip name of a `CLIP`")
    parser.add_argument("--texts", type=int, default=32)
    args = parser.parse_args(argv)
    comparisons = [comparison(args, backward=False), comparison(args, backward=True)]
    return sbs.run("text_padding", comparisons, sbs.settings_from(args))


if __name__ == "__main__":
    main()

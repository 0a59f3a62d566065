"""SAM's masks for 1, 5 and 20 phrases of an image: `SamRefiner` against a loop over transformers'
decoder.

Both start from the image's embedding, coarse logits and words, and end with logits at the size of
the image. The loop takes one phrase after the other, as the original does: prompt by interpolation
to 1024 px and back, transformers' prompt encoder and mask decoder, and interpolation of the mask to
1024 px, cropped, to the size of the image. Sizes are those of SAM ViT-B, whose decoder is that of
ViT-L and ViT-H too; weights are random and nothing trains.
"""

from collections.abc import Callable, Sequence
from functools import partial

import side_by_side as sbs
import torch
import torch.nn.functional as F
from flmm import ImageEmbedding, SamRefiner
from flmm.refiners import resized_size
from torch import Tensor
from transformers import SamConfig, SamModel, SamVisionConfig

TOLERANCE = 1e-5  # of logits whose largest are about 1
TARGETS = {20: 3.0}
Inputs = tuple[list[ImageEmbedding], list[Tensor], list[list[Tensor]]]


def decoder_of_vit_b(edge: int, device: str) -> SamModel:
    """Prompt encoder and mask decoder at full size; the image encoder, which is not run, has one
    thin layer."""
    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=edge
    )
    sam = SamModel(SamConfig(vision_config=vision, prompt_encoder_config={"image_size": edge}))
    with torch.no_grad():
        for parameter in (
            sam.mask_decoder.parameters()
        ):  # transformers' first weights are too small to see anything
            parameter.mul_(2)
    return sam.to(device).eval()


def inputs(phrases: int, size: tuple[int, int], edge: int, *, device: str) -> Inputs:
    """An image's embedding, smooth coarse logits of its phrases, and 1 to 8 words for each."""
    generator = torch.Generator().manual_seed(phrases)
    features = torch.randn(256, edge // 16, edge // 16, generator=generator)
    noise = torch.randn(1, phrases, 6, 8, generator=generator)
    coarse = 4 * F.interpolate(noise, size=(48, 64), mode="bicubic")[0]
    counts = torch.randint(1, 9, (phrases,), generator=generator).tolist()
    text = [torch.randn(count, 256, generator=generator).to(device) for count in counts]
    return [ImageEmbedding(features.to(device), size)], [coarse.to(device)], [text]


def together(
    phrases: int, size: tuple[int, int], edge: int, *, device: str
) -> Callable[[], Tensor]:
    """-> function that returns (phrases, H, W) logits."""
    refiner = SamRefiner(decoder_of_vit_b(edge, device))
    given = inputs(phrases, size, edge, device=device)
    return torch.no_grad()(lambda: refiner(*given)[0])


def loop(phrases: int, size: tuple[int, int], edge: int, *, device: str) -> Callable[[], Tensor]:
    sam = decoder_of_vit_b(edge, device)
    [embedding], [coarse], [text] = inputs(phrases, size, edge, device=device)

    @torch.no_grad()
    def call() -> Tensor:
        padding = min(-1.0, coarse.min().item())
        return torch.cat(
            [
                one_phrase(sam, embedding, (c, t), edge=edge, padding=padding)
                for c, t in zip(coarse, text, strict=True)
            ]
        )

    return call


def one_phrase(
    sam: SamModel,
    embedding: ImageEmbedding,
    prompt: tuple[Tensor, Tensor],
    *,
    edge: int,
    padding: float,
) -> Tensor:
    """Coarse logits (h, w) and words (t, 256) of one phrase -> (1, H, W)."""
    (coarse, words), size = prompt, embedding.size
    resize = partial(F.interpolate, mode="bilinear", align_corners=False)
    height, width = resized_size(size, edge)
    square = F.pad(
        resize(coarse[None, None], size=(height, width)),
        (0, edge - width, 0, edge - height),
        value=padding,
    )
    binary = resize(coarse[None, None].sigmoid(), size=size)[0, 0] > 0.5
    y, x = binary.nonzero().unbind(1)
    box = torch.stack(
        [x.min() / size[1], y.min() / size[0], (x.max() + 1) / size[1], (y.max() + 1) / size[0]]
    )
    box = box * box.new_tensor([width, height, width, height])
    sparse, dense = sam.prompt_encoder(
        None, None, box[None, None], resize(square, size=(edge // 4, edge // 4))
    )
    masks, _ = sam.mask_decoder(
        image_embeddings=embedding.features[None],
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=torch.cat([sparse, words[None, None]], dim=2),
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return resize(resize(masks[0], size=(edge, edge))[..., :height, :width], size=size)[0]


def comparisons(args) -> list[sbs.Comparison]:
    size = tuple(args.image_px)
    return [
        sbs.Comparison(
            name=f"{phrases} phrases" if phrases > 1 else "1 phrase",
            sizes=f"decoder of ViT-B, phrases of 1 to 8 words, image of {size[1]}x{size[0]} px, fp32",
            ours=sbs.Candidate(
                "SamRefiner", partial(together, phrases, size, args.sam_px, device=args.device)
            ),
            other=sbs.Candidate(
                "loop", partial(loop, phrases, size, args.sam_px, device=args.device)
            ),
            agree=partial(sbs.largest_difference, tolerance=TOLERANCE),
            target=TARGETS.get(phrases),
            items=phrases,
            item="phrase",
        )
        for phrases in args.phrases
    ]


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=7)
    parser.add_argument(
        "--phrases", type=int, nargs="+", default=[1, 5, 20], help="phrases of the image"
    )
    parser.add_argument(
        "--image-px", type=int, nargs=2, default=[480, 640], help="height and width of the image"
    )
    parser.add_argument("--sam-px", type=int, default=1024, help="side of SAM's own square")
    args = parser.parse_args(argv)
    return sbs.run("sam_decoder", comparisons(args), sbs.settings_from(args))


if __name__ == "__main__":
    main()

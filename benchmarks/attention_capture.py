"""Phrase rows of a language model's attention to an image: captured beside SDPA, against
`output_attentions=True`.

Both sides run the same random Llama on the same sequence and end with the same maps: attention of
every head of every layer to the image's tokens, averaged over the words of each phrase. The other
side is what one writes without a capture: unfused attention that returns all of its matrices, from
which rows and columns are taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import side_by_side as sbs
import torch
from flmm import Capture, PhraseRows, use_rows_attention
from memory import MIB
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
HEAD_WIDTH = 64
IMAGE_START = 20
WORDS = 3


@dataclass(frozen=True)
class Maps:
    """maps: (phrases, layers * heads, image tokens). kept_bytes: of attention that was held until
    they were made."""

    maps: Tensor
    kept_bytes: int


def random_model(
    layers: int, heads: int, *, dtype: str, device: str, head_width: int = HEAD_WIDTH
) -> LlamaModel:
    torch.manual_seed(0)
    width = heads * head_width
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=8192,
    )
    with torch.device(device):
        return LlamaModel(config).to(getattr(torch, dtype)).eval()


def sequence(
    tokens: int, image_tokens: int, phrases: int, device: str
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(1, S) ids, the positions of the image's tokens, and those of each phrase's words at the
    end."""
    first = tokens - phrases * WORDS
    if IMAGE_START + image_tokens > first:
        raise ValueError(
            f"{image_tokens} image tokens and {phrases} phrases do not fit {tokens} tokens: raise "
            "--tokens"
        )
    ids = torch.randint(0, 100, (1, tokens), generator=torch.Generator().manual_seed(1)).to(device)
    columns = torch.arange(IMAGE_START, IMAGE_START + image_tokens)
    return ids, columns, list(torch.arange(first, tokens).split(WORDS))


def captured(shape: dict, work: dict) -> Callable[[], Maps]:
    model = random_model(**shape)
    use_rows_attention(model)
    ids, columns, phrases = sequence(**work, device=shape["device"])

    @torch.no_grad()
    def call() -> Maps:
        with Capture(model, rows=[PhraseRows(phrases)], columns=[columns]) as capture:
            model(input_ids=ids, use_cache=False)
        maps = capture.maps(0)
        return Maps(maps, maps.nbytes)

    return call


def returned(shape: dict, work: dict) -> Callable[[], Maps]:
    model = random_model(**shape)
    model.set_attn_implementation("eager")
    ids, columns, phrases = sequence(**work, device=shape["device"])

    @torch.no_grad()
    def call() -> Maps:
        attentions = model(input_ids=ids, use_cache=False, output_attentions=True).attentions
        rows = torch.cat(phrases)
        layers = [
            layer[0][:, rows][..., columns].unflatten(1, (-1, WORDS)).mean(2)
            for layer in attentions
        ]
        return Maps(torch.cat(layers).transpose(0, 1), sum(layer.nbytes for layer in attentions))

    return call


def agree(ours: Maps, other: Maps, *, tolerance: float) -> dict[str, float]:
    distance = sbs.largest_difference(ours.maps, other.maps, tolerance)
    kept = {
        "kept MiB": ours.kept_bytes / MIB,
        "kept MiB of the other": other.kept_bytes / MIB,
    }
    return {**distance, **kept}


def comparison(
    args, *, target: float | None = 2.0, memory_target: float | None = 0.1
) -> sbs.Comparison:
    shape = {
        "layers": args.layers,
        "heads": args.heads,
        "dtype": args.dtype,
        "device": args.device,
        "head_width": args.head_width,
    }
    work = {"tokens": args.tokens, "image_tokens": args.image_tokens, "phrases": args.phrases}
    return sbs.Comparison(
        name="attention to the image",
        sizes=(
            f"Llama of {args.layers} layers x {args.heads} heads of {args.head_width}, "
            f"{args.tokens} tokens, "
            f"{args.phrases} phrases of "
            f"{WORDS} words x {args.image_tokens} image tokens, {args.dtype}"
        ),
        ours=sbs.Candidate("rows beside SDPA", partial(captured, shape, work)),
        other=sbs.Candidate("output_attentions=True", partial(returned, shape, work)),
        agree=partial(agree, tolerance=TOLERANCE[args.dtype]),
        target=target,
        memory_target=memory_target,
        items=1,
        item="image",
    )


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=3)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-width", type=int, default=HEAD_WIDTH)
    parser.add_argument("--tokens", type=int, default=2900)
    parser.add_argument("--image-tokens", type=int, default=2304)
    parser.add_argument("--phrases", type=int, default=20)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    args = parser.parse_args(argv)
    return sbs.run("attention_capture", [comparison(args)], sbs.settings_from(args))


if __name__ == "__main__":
    main()

"""Memory of the attention to an image in LMMs of real size: computed for whole models, measured on
as many layers of a 3B model as fit.

Both sides are those of attention_capture.py. The computed figures are of what is held until the
maps of 20 phrases are made: all matrices in bfloat16, or the captured rows in float32.
"""

from collections.abc import Sequence

import side_by_side as sbs
from attention_capture import TOLERANCE, comparison
from memory import MIB

# Layers, heads, tokens of an image, tokens of the whole text: sizes of models as they are released.
REAL = {
    "Qwen2.5-VL 3B, an image of 1000 x 1000 px": (36, 16, 1296, 1400),
    "Qwen2.5-VL 3B, an image of 1400 x 1400 px": (36, 16, 2500, 2600),
    "LLaVA-1.5 7B": (32, 32, 576, 680),
    "LLaVA-NeXT 7B, an image of 640 x 480 px": (32, 32, 2340, 2440),
}
PHRASES = 20


def computed_lines() -> list[str]:
    """Return the memory of both sides for one image, a line for each model."""
    lines = []
    for name, (layers, heads, image_tokens, tokens) in REAL.items():
        matrices = layers * heads * tokens**2 * 2 / MIB
        rows = PHRASES * layers * heads * image_tokens * 4 / MIB
        lines.append(
            f"computed, {name}, {PHRASES} phrases: output_attentions=True {matrices:.0f} MiB, "
            f"captured rows {rows:.0f} MiB"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> dict:
    parser = sbs.argument_parser(__doc__, pairs=1, threads=1)
    # The first model of `REAL`, with heads of 128.
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-width", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=1400)
    parser.add_argument("--image-tokens", type=int, default=1296)
    parser.add_argument("--phrases", type=int, default=1)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    args = parser.parse_args(argv)
    measured = comparison(args, target=None, memory_target=None)
    notes = computed_lines()
    print("\n".join(notes))
    return sbs.run("attention_memory", [measured], sbs.settings_from(args), notes=notes)


if __name__ == "__main__":
    main()

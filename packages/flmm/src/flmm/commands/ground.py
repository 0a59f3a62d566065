"""`flmm ground IMAGE "a red car" "the man on the left" --lmm ... --checkpoint ... -o out.png`."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from flmm.commands.options import add_model_options, load_from_options, say


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flmm ground", description="Draw the masks of phrases in an image."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument(
        "phrases", nargs="+", metavar="PHRASE", help='in quotes, such as "the man on the left"'
    )
    add_model_options(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="picture; masks are written beside it as .json. Default: IMAGE.grounded.png",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Raises ValueError or FileNotFoundError for mistakes of the user."""
    options = build_parser().parse_args(argv)
    from flmm.grounders.heads import check_phrases
    from flmm.grounders.images import ground, save_grounding
    from flmm.grounders.pictures import picture_path, read_image

    # What can be wrong is looked at before the minutes that loading can take.
    image = read_image(options.image)
    out = picture_path(options.out or Path(f"{options.image.stem}.grounded.png"))
    check_phrases(options.phrases)
    model = load_from_options(options)
    begin = time.monotonic()
    masks = ground(image, options.phrases, model)
    picture, record = save_grounding(
        out, image, masks, options.phrases, about={"image": options.image.name}
    )
    say(f"grounded in {time.monotonic() - begin:.1f} s")
    for phrase, mask in zip(options.phrases, masks):
        print(f"{100 * mask.mean():5.1f} % of the image  {phrase}")
    print(f"{picture}\n{record}")

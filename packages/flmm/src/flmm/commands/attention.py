"""`flmm attention IMAGE "a red car" --lmm ...`: the attention of an LMM to an image while it reads
a phrase."""

import time
from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option, at_least

from flmm.commands.options import (
    add_weight_options,
    device_and_dtype,
    loading,
    say,
    weight_options,
)


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `flmm`."""
    parser = add_command(
        commands,
        "attention",
        run,
        "draw where an LMM looks while it reads phrases; without heads and SAM",
    )
    parser.add_argument("image", metavar="IMAGE", help="a file or a URL")
    parser.add_argument("phrases", nargs="+", metavar="PHRASE", help='in quotes, "a red car"')
    parser.add_argument(
        "--lmm",
        required=True,
        metavar="PATH_OR_HUB_ID",
        help="such as llava-hf/llava-1.5-7b-hf; no trained heads and no SAM are needed",
    )
    add_weight_options(parser)
    parser.add_argument(
        "--heads",
        type=at_least(1),
        default=6,
        metavar="N",
        help="how many of the most focused heads are drawn; default: 6",
    )
    add_option(
        parser,
        "--out",
        short="-o",
        metavar="PICTURE",
        help="png, jpg or webp to write, with the maps as npz next to it; default: "
        "IMAGE.attention.png",
    )


def run(options: Namespace) -> None:
    """Draw the attention and write it, see `add`."""
    from clim_eval.pictures import write_figure
    from clim_models.pipelines import picture_path

    from flmm.adapters.registry import load_lmm
    from flmm.grounders.phrase_maps import phrase_maps
    from flmm.hub import check_device
    from flmm.pictures.attention import attention_figure
    from flmm.pictures.files import name_of_picture, read_image
    from flmm.text.phrases import check_phrases

    # Everything is checked before loading, which can take minutes.
    image = read_image(options.image)
    name = name_of_picture(options.image)
    out = picture_path(
        options.out or Path(f"{Path(name).stem}.attention.png"), source=options.image
    )
    check_phrases(options.phrases)
    device, dtype = device_and_dtype(options)
    check_device(device)

    with loading(f"{options.lmm} ({dtype}, {device})"):
        lmm = load_lmm(options.lmm, dtype=dtype, device=device, **weight_options(options))
    begin = time.monotonic()
    maps = phrase_maps(lmm, image, options.phrases, heads=options.heads)
    say(f"read in {time.monotonic() - begin:.1f} s")
    arrays = maps.save(out.with_suffix(".npz"))
    write_figure(out, attention_figure(image, maps))
    for number, phrase in enumerate(maps.phrases):
        share = 100 * float(maps.shares[number].mean())
        print(f"{share:5.1f} % of the attention is on the image  {phrase}")
    print(f"{out}\n{arrays}")

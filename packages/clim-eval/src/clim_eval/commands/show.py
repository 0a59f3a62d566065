"""`clim-eval show`: similarity maps of texts on one image."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option, need_path

from clim_eval.commands.options import TEMPLATE_NAMES, add_model_options
from clim_eval.commands.shared import load_model
from clim_eval.pictures.files import write_png
from clim_eval.pictures.similarity import similarity_figure


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "show", run, "draw where the model sees each text in an image")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    add_model_options(parser, "64 patches on the longest side")
    parser.add_argument(
        "--draw", choices=("box", "mask", "none"), default="box", help="what marks the best region"
    )
    parser.add_argument(
        "--readout",
        choices=("value_residual", "value"),
        default="value_residual",
        help="path of the last block that gives the dense features",
    )
    parser.add_argument(
        "--templates",
        choices=TEMPLATE_NAMES,
        help="fill each TEXT into templates; default: as it is",
    )
    add_option(
        parser,
        "--out",
        metavar="PNG",
        help="picture to write; default: IMAGE's name with .similarity.png, in this folder",
    )


def run(options: Namespace) -> None:
    """Draw similarity maps of texts on one image."""
    from clim_data import decode_rgb
    from clim_models.text import class_prompts

    from clim_eval.embeddings import TEMPLATES
    from clim_eval.pictures.locate import encode_texts, locate_texts

    need_path(options.image, "IMAGE")
    if not all(text.strip() for text in options.texts):
        raise ValueError('an empty TEXT names nothing: pass what to look for, such as "a cat"')
    image = decode_rgb(options.image)
    model = load_model(options)
    prompts = (
        (lambda text: class_prompts(text, TEMPLATES[options.templates]))
        if options.templates
        else None
    )
    texts = encode_texts(model, options.texts, prompts)
    found = locate_texts(
        model, image, texts, image_px=options.image_px or 64 * model.stride, readout=options.readout
    )
    figure = similarity_figure(
        image,
        found.maps,
        options.texts,
        boxes=found.boxes if options.draw == "box" else None,
        masks=found.masks if options.draw == "mask" else None,
        scores=found.scores.tolist(),
    )
    out = options.out or Path(f"{options.image.stem}.similarity.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, figure)
    height, width = image.shape[1:]
    for text, score, box in zip(options.texts, found.scores, found.boxes, strict=True):
        x0, y0, x1, y1 = (round(v) for v in (box * [width, height, width, height]).tolist())
        print(f"{text}: cosine {score:.3f}, box x {x0}-{x1}, y {y0}-{y1} px")
    print(f"picture: {out}")

"""`clim-eval show`: similarity maps of texts on one image."""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data.command_line import Commands, add_command, add_option, need_path

from clim_eval.commands.options import TEMPLATE_NAMES, add_model_options, add_vocabulary_option
from clim_eval.commands.shared import load_model
from clim_eval.pictures.files import write_png
from clim_eval.pictures.similarity import similarity_figure

if TYPE_CHECKING:
    from clim_models import RegionModel
    from torch import Tensor


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "show", run, "draw where the model sees each text in an image")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    add_vocabulary_option(parser, ", in place of TEXTs")
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
        help="fill each TEXT, or phrase, into templates; default: as it is",
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

    from clim_eval.pictures.locate import locate_texts

    need_path(options.image, "IMAGE")
    if bool(options.texts) == bool(options.vocabulary):
        raise ValueError("pass texts to look for, or --vocabulary JSON, and not both")
    if not all(text.strip() for text in options.texts):
        raise ValueError('an empty TEXT names nothing: pass what to look for, such as "a cat"')
    image = decode_rgb(options.image)
    model = load_model(options)
    names, vectors = _texts(options, model)
    found = locate_texts(
        model,
        image,
        vectors,
        image_px=options.image_px or 64 * model.stride,
        readout=options.readout,
    )
    figure = similarity_figure(
        image,
        found.maps,
        names,
        boxes=found.boxes if options.draw == "box" else None,
        masks=found.masks if options.draw == "mask" else None,
        scores=found.scores.tolist(),
    )
    out = options.out or Path(f"{options.image.stem}.similarity.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, figure)
    height, width = image.shape[1:]
    for text, score, box in zip(names, found.scores, found.boxes, strict=True):
        x0, y0, x1, y1 = (round(v) for v in (box * [width, height, width, height]).tolist())
        print(f"{text}: cosine {score:.3f}, box x {x0}-{x1}, y {y0}-{y1} px")
    print(f"picture: {out}")


def _texts(options: Namespace, model: "RegionModel") -> tuple[list[str], "Tensor"]:
    """Return what is looked for: N names and their vectors (N, C)."""
    from clim_models.text import class_prompts

    from clim_eval.class_vectors import VocabularyFile
    from clim_eval.embeddings import TEMPLATES
    from clim_eval.pictures.locate import encode_texts

    if options.vocabulary:
        found = VocabularyFile.read(options.vocabulary).embed(model, options.templates or "name")
        return list(found.vocabulary.names), found.embeddings
    prompts = None
    if options.templates:
        templates = TEMPLATES[options.templates]
        prompts = partial(class_prompts, templates=templates)
    return options.texts, encode_texts(model, options.texts, prompts)

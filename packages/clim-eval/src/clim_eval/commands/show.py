"""`clim-eval show`: where a model, or two, see texts in an image."""

import json
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data.command_line import Commands, add_command, add_option, need_path

from clim_eval.commands.options import TEMPLATE_NAMES, add_model_options, add_vocabulary_option
from clim_eval.commands.shared import load_model
from clim_eval.model_loading import reading_px, say
from clim_eval.pictures.example import read_example
from clim_eval.pictures.files import write_figure

if TYPE_CHECKING:
    from clim_models import RegionModel
    from torch import Tensor

    from clim_eval.commands.show_answers import Answer, Question

DEFAULT_PX = "the size of the training; of a released model, half as much again as its own"


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "show", run, "draw where the model sees each text in an image")
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="file, or http(s) address")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    add_vocabulary_option(parser, ", in place of TEXTs")
    parser.add_argument(
        "--example",
        action="store_true",
        help="ask the shipped model about the shipped scene, before and after CLIM; no download",
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="two models in one picture, in place of --pretrained: tags, files or run folders",
    )
    add_option(parser, "--boxes", help="COCO json of boxes in IMAGE, which get the best TEXT")
    add_model_options(parser, DEFAULT_PX)
    parser.add_argument(
        "--draw",
        choices=("box", "mask", "none"),
        default="box",
        help="what marks the region around the peak",
    )
    parser.add_argument(
        "--readout",
        choices=("value_residual", "value", "sclip", "clearclip", "naclip"),
        default="value_residual",
        help="path of the last block that gives the dense features",
    )
    parser.add_argument(
        "--templates",
        choices=TEMPLATE_NAMES,
        help="fill each TEXT, or phrase, into templates; default: as it is",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    add_option(
        parser,
        "--out",
        metavar="PICTURE",
        help="png, jpg or webp to write; default: IMAGE's name with .similarity.png, in this "
        "folder",
    )


def run(options: Namespace) -> None:
    """Draw where one model, or two, see texts in an image."""
    from clim_models.pipelines import picture_path

    from clim_eval.commands.show_answers import figure_of, json_of, lines_of, summary_of

    _check(options)
    out = options.out or Path(f"{_stem(options)}.similarity.png")
    picture_path(out, source=options.image)  # before a model is loaded, which can take minutes
    question = _question(options)
    answers = _answers(options, question)
    write_figure(out, figure_of(question, answers))

    if options.json:
        found = {"answers": [json_of(question, one) for one in answers], "picture": str(out)}
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for answer in answers:
        print(f"{answer.title} · {answer.image_px} px")
        if not options.example:
            print("\n".join(lines_of(question, answer)))
    if options.example:
        print("\n".join(summary_of(question, {one.title: one for one in answers})))
        print(f"one scene of many ({read_example().chosen})")
    print(f"picture: {out}")


def _check(options: Namespace) -> None:
    """Refuse arguments that do not go together.

    Raises:
        ValueError, FileNotFoundError: see above.
    """
    from clim_models.pipelines import is_url

    given = {
        "IMAGE": options.image,
        "--vocabulary": options.vocabulary,
        "--compare": options.compare,
        "--pretrained": options.pretrained,
        "--model": options.model,
        "--boxes": options.boxes,
    }
    if options.example:
        others = [name for name, value in given.items() if value]
        if others:
            raise ValueError(f"--example brings its own {', '.join(others)}: leave that out")
        return

    if not options.image:
        raise ValueError("which image? pass IMAGE and texts, or --example")
    if options.compare and options.pretrained:
        raise ValueError("--compare names both models: leave --pretrained out")
    if bool(options.texts) == bool(options.vocabulary):
        raise ValueError("pass texts to look for, or --vocabulary JSON, and not both")
    if not all(text.strip() for text in options.texts):
        raise ValueError('an empty TEXT names nothing: pass what to look for, such as "a cat"')
    if not is_url(options.image):
        need_path(Path(options.image), "IMAGE")
    elif options.boxes:
        raise ValueError("--boxes needs IMAGE as a file: download it first")


def _stem(options: Namespace) -> str:
    """Return the name of the picture without its ending."""
    if options.example:
        return "example"
    return Path(options.image.partition("?")[0]).stem or "picture"


def _question(options: Namespace) -> "Question":
    """Read the image, the texts and the boxes."""
    import torch
    from clim_models.pipelines import read_picture

    from clim_eval.class_vectors import VocabularyFile
    from clim_eval.commands.show_answers import Question

    if options.example:
        scene = read_example()
        true_boxes, words = torch.tensor(scene.boxes), torch.arange(len(scene.words))
        return Question(read_picture(scene.image), scene.words, true_boxes, words)

    texts = tuple(options.texts)
    if options.vocabulary:
        texts = tuple(VocabularyFile.read(options.vocabulary).vocabulary.names)
    boxes = _boxes_of(Path(options.image), options.boxes) if options.boxes else None
    return Question(read_picture(options.image), texts, boxes, draw=options.draw)


def _boxes_of(image: Path, boxes: Path) -> "Tensor":
    """Return the boxes of an image in a COCO json, (n, 4) XYXY in [0, 1].

    Raises:
        FileNotFoundError, ValueError: no such json, or it has no box in the image.
    """
    import torch
    from clim_data.matching import BoxRules, load_boxes
    from clim_data.sources import SampleStore

    need_path(boxes, "--boxes")
    store = SampleStore([str(image.parent)], texts=False)
    table = load_boxes(boxes, store, BoxRules(labelled=False))
    rows = [row for row, (_, name) in enumerate(table.images) if Path(name).name == image.name]
    if not rows:
        raise ValueError(f"{boxes} has no box in {image.name}: pass boxes of this image")

    first, end = table.starts[rows[0] : rows[0] + 2].tolist()
    height, width = table.sizes[rows[0]].tolist()
    sides = torch.tensor([width, height, width, height])
    return (torch.from_numpy(table.boxes[first:end]) / sides).float()


def _weights(options: Namespace) -> tuple[str | None, ...]:
    """Return the weights of the models of the command line."""
    from clim_models import AFTER_CLIM, SHIPPED

    if options.example:
        return (SHIPPED, AFTER_CLIM)
    return tuple(options.compare) if options.compare else (options.pretrained,)


def _answers(options: Namespace, question: "Question") -> list["Answer"]:
    """Load the models and return their answers."""
    from clim_eval.commands.show_answers import Answer, title_of
    from clim_eval.model_loading import has_random_weights
    from clim_eval.pictures.locate import locate_texts

    models = []
    for weights in _weights(options):
        own = Namespace(**{**vars(options), "pretrained": weights})
        models.append(load_model(own))
    if models[-1].knows and not options.example:
        say("is this a photograph? then expect nothing: clim-eval show --example has its drawings")

    answers: list[Answer] = []
    image_px = _image_px(options, models)
    for model in models:
        found = locate_texts(
            model,
            question.image,
            _vectors(options, model, question),
            image_px=image_px,
            readout=options.readout,
            boxes=question.boxes,
        )
        title = title_of(model, alone=len(models) == 1)
        if options.example:
            title = ("before CLIM", "after CLIM")[len(answers)]
        answers.append(Answer(title, image_px, found, has_random_weights(model)))
    return answers


def _image_px(options: Namespace, models: Sequence["RegionModel"]) -> int:
    """Return the longest side at which the image is read, and say why.

    Two models are compared at one size: the size of the last model that knows its own.
    """
    known = [model.eval_px for model in models if model.eval_px is not None]
    if options.image_px is not None or known:
        return reading_px(models[-1], options.image_px, default=known[-1] if known else None)

    model = models[-1]
    own = max(model.image_size)
    px = round(1.5 * own / model.stride) * model.stride
    say(f"reading at {px} px, a step above the model's own {own} px (--image-px changes it)")
    return px


def _vectors(options: Namespace, model: "RegionModel", question: "Question") -> "Tensor":
    """Return the vectors (N, C) of the queries."""
    from clim_models.text import class_prompts

    from clim_eval.class_vectors import VocabularyFile
    from clim_eval.embeddings import TEMPLATES
    from clim_eval.pictures.locate import encode_texts

    if options.vocabulary:
        found = VocabularyFile.read(options.vocabulary)
        return found.embed(model, options.templates or "name").embeddings
    prompts = None
    if options.templates:
        prompts = partial(class_prompts, templates=TEMPLATES[options.templates])
    return encode_texts(model, question.texts, prompts)

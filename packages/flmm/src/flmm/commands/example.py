"""The option --example: a picture and a trained model that come with flmm."""

import argparse
from pathlib import Path

from flmm.commands.options import say

FOLDER = "flmm-example"


def add_example_option(parser: argparse.ArgumentParser) -> None:
    """Add --example."""
    parser.add_argument(
        "--example",
        action="store_true",
        help="use a picture and a tiny trained model that come with flmm: no download, no "
        f"training; they are written into {FOLDER}",
    )


def use_example(options: argparse.Namespace) -> None:
    """Set picture, phrases, checkpoint and output of an example where --example asks for it.

    Raises:
        ValueError: an option is given that the example sets, or no picture where there is no
            example.
    """
    if not options.example:
        if getattr(options, "image", "") is None:
            raise ValueError(
                "there is no picture: pass IMAGE, or --example for one that comes with flmm"
            )
        return
    given = [name for name in ("image", "checkpoint", "lmm", "sam") if getattr(options, name, None)]
    if given:
        flags = {"image": "IMAGE", "sam": "--refiner"}
        names = ", ".join(flags.get(name, f"--{name}") for name in given)
        raise ValueError(f"--example brings its own picture and model: leave out {names}")

    from flmm.demo.example import write_example

    folder = Path(FOLDER)
    say(f"writing the example into {folder} ...")
    example = write_example(folder)
    options.checkpoint = example.checkpoint
    if hasattr(options, "image"):
        options.image = example.image
    if hasattr(options, "phrases"):
        named = options.phrases or getattr(options, "vocabulary", None)
        options.phrases = options.phrases if named else list(example.phrases)
    if hasattr(options, "examples"):
        options.examples = options.examples or example.images

"""`clim-eval embed`: class embeddings to a file."""

import json
from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option, need_path
from clim_data.files import read_names

from clim_eval.commands.options import add_class_options, add_model_options
from clim_eval.commands.shared import embed_names, load_model


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "embed", run, "compute class embeddings from prompt templates")
    add_model_options(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    add_option(source, "--names", help="text file with one class name or noun per line")
    source.add_argument(
        "--categories-json", type=Path, help="COCO-style file; classes in the order of their ids"
    )
    add_class_options(parser)
    add_option(
        parser,
        "--out",
        required=True,
        metavar="FILE",
        help="NAME.safetensors, or NAME.npy with NAME.npy.json",
    )


def run(options: Namespace) -> None:
    """Class embeddings to a file."""
    from clim_eval.embeddings import embeddings_path, save_class_embeddings

    embeddings_path(options.out)
    if options.names:
        names = read_names(options.names, "--names")
    else:
        need_path(options.categories_json, "--categories-json")
        content = json.loads(options.categories_json.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content.get("categories"):
            raise ValueError(
                f"{options.categories_json} has no categories: pass a COCO-style annotation file"
            )
        names = [
            category["name"]
            for category in sorted(content["categories"], key=lambda category: category["id"])
        ]
    model = load_model(options)
    embeddings = embed_names(options, model, names)
    save_class_embeddings(options.out, embeddings, names, options.templates, model=model)
    print(f"{len(names)} classes x {embeddings.shape[1]} channels: {options.out}")

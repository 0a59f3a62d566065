"""`clim-eval embed`: class embeddings to a file."""

from argparse import Namespace
from pathlib import Path

from clim_data.annotations import read_categories
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
    """Write class embeddings to a file."""
    from clim_eval.embeddings import embeddings_path, save_class_embeddings

    embeddings_path(options.out)
    if options.names:
        names = read_names(options.names, "--names")
    else:
        need_path(options.categories_json, "--categories-json")
        names = list(read_categories(options.categories_json).names)
    model = load_model(options)
    embeddings = embed_names(options, model, names)
    save_class_embeddings(options.out, embeddings, names, options.templates, model=model)
    print(f"{len(names)} classes x {embeddings.shape[1]} channels: {options.out}")

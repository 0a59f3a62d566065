"""`clim-eval embed`: class embeddings to a file."""

from argparse import Namespace
from pathlib import Path

from clim_data.annotations import read_categories
from clim_data.command_line import Commands, add_command, add_option, need_path
from clim_data.files import read_names

from clim_eval.commands.options import add_class_options, add_model_options, add_vocabulary_option
from clim_eval.commands.shared import class_rows, load_model


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(commands, "embed", run, "compute class embeddings from prompt templates")
    add_model_options(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    add_option(source, "--names", help="text file with one class name or noun per line")
    source.add_argument(
        "--categories-json",
        type=Path,
        metavar="JSON",
        help="COCO-style file; classes in the order of their ids",
    )
    add_vocabulary_option(source)
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
    names = _names(options)
    model = load_model(options)
    embeddings = class_rows(options, model, names)
    # Phrases under `not` belong to no class.
    rejects = len(embeddings) - len(names)
    embeddings = embeddings[: len(names)]
    save_class_embeddings(options.out, embeddings, names, options.templates, model=model)
    print(f"{len(names)} classes x {embeddings.shape[1]} channels: {options.out}")
    if rejects:
        print(
            f"{rejects} phrases under 'not' have no row in the file: pass the vocabulary itself to "
            "the command that names things"
        )


def _names(options: Namespace) -> list[str]:
    """Return the names of the classes."""
    if options.names:
        return read_names(options.names, "--names")
    if options.vocabulary:
        from clim_models.text import Vocabulary

        return list(Vocabulary.read(options.vocabulary).names)
    need_path(options.categories_json, "--categories-json")
    return list(read_categories(options.categories_json).names)

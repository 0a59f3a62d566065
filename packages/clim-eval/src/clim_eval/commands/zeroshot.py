"""`clim-eval zeroshot`: zero-shot classification of images that have one class each."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option
from clim_data.files import read_names

from clim_eval.commands.options import add_class_source_options, add_model_options, add_run_options
from clim_eval.commands.shared import (
    check_report_folder,
    class_rows,
    command_config,
    finish,
    load_model,
    run_loading,
    scored_counts,
)
from clim_eval.evaluators.zeroshot import ZeroShotClassification
from clim_eval.pictures.bars import accuracy_bars


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands, "zeroshot", run, "zero-shot classification of images, top-1 and top-5"
    )
    add_model_options(parser, "the model's own")
    add_option(
        parser,
        "--images",
        type=Path,
        required=True,
        help="folder with a folder for each class, or shards",
    )
    add_option(
        parser,
        "--names",
        help="text file with one class name per line; default: the names of the folders",
    )
    add_class_source_options(parser)
    add_run_options(parser, batch_size=64)


def run(options: Namespace) -> None:
    """Evaluate zero-shot classification of images that have one class each."""
    from clim_data.readers import class_images

    check_report_folder(options.out)

    model = load_model(options)
    names = read_names(options.names, "--names") if options.names else None
    data = class_images(options.images, options.image_px or model.image_size[0], names=names)
    rows = class_rows(options, model, data.class_names)
    evaluator = ZeroShotClassification(model, rows, loading=run_loading(options))
    metrics = evaluator.run(data)
    finish(
        options,
        title=f"Zero-shot classification of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=scored_counts(data.description(), evaluator.coverage),
        coverage=evaluator.coverage,
        figure=lambda: accuracy_bars(
            {options.model: metrics}, title=f"{options.model}: zero-shot accuracy"
        ),
    )

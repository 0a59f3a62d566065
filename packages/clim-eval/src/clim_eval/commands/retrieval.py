"""`clim-eval retrieval`: image-text retrieval on COCO-style captions."""

from argparse import Namespace
from pathlib import Path

from clim_data.command_line import Commands, add_command, add_option, need_path

from clim_eval.commands.options import add_model_options, add_run_options
from clim_eval.commands.shared import command_config, finish, load_model, tell_skipped
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.provenance import data_fingerprint


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands, "retrieval", run, "image-text retrieval recall in both directions"
    )
    add_model_options(parser, "the model's own")
    add_option(parser, "--images", type=Path, required=True, metavar="DIR", help="folder of images")
    add_option(parser, "--captions-json", required=True)
    add_run_options(parser, batch_size=64)


def run(options: Namespace) -> None:
    """Image-text retrieval on COCO-style captions."""
    from clim_data import ImageCaptions

    need_path(options.images, "--images", folder=True)
    need_path(options.captions_json, "--captions-json")
    model = load_model(options)
    data = ImageCaptions(
        options.images, options.captions_json, options.image_px or model.image_size[0]
    )
    retrieval = ImageTextRetrieval(
        model, batch_size=options.batch_size, workers=options.workers, progress=True
    )
    left_out = list(data.skipped.entries)  # before the run adds files that turn out to be broken
    metrics = retrieval.run(data)
    tell_skipped([*left_out, *(f"image {image_id}" for image_id in retrieval.skipped)])
    directions = {
        title: {
            name.partition(".")[2]: value
            for name, value in metrics.items()
            if name.startswith(start)
        }
        for start, title in (("i2t", "image to text"), ("t2i", "text to image"))
    }
    finish(
        options,
        title=f"Image-text retrieval of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint(
            [options.captions_json], {"images": len(data) - len(retrieval.skipped)}
        ),
        figure=lambda: accuracy_bars(directions, title=f"{options.model}: retrieval recall"),
    )

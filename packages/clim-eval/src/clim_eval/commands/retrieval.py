"""`clim-eval retrieval`: image-text retrieval on COCO-style captions."""

from argparse import Namespace

from clim_data.command_line import Commands, add_command, add_option, need_path

from clim_eval.commands.options import add_model_options, add_run_options
from clim_eval.commands.shared import (
    check_report_folder,
    command_config,
    finish,
    load_model,
    need_images,
    run_loading,
)
from clim_eval.evaluators.retrieval import ImageTextRetrieval
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.provenance import data_fingerprint


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands, "retrieval", run, "image-text retrieval recall in both directions"
    )
    add_model_options(parser, "the model's own")
    add_option(parser, "--images", required=True)
    add_option(parser, "--captions-json", required=True)
    add_run_options(parser, batch_size=64)


def run(options: Namespace) -> None:
    """Evaluate image-text retrieval on COCO-style captions."""
    from clim_data import ImageCaptions

    check_report_folder(options.out)

    need_images(options.images, "--images")
    need_path(options.captions_json, "--captions-json")
    model = load_model(options)
    data = ImageCaptions(
        options.images, options.captions_json, options.image_px or model.image_size[0]
    )
    retrieval = ImageTextRetrieval(model, loading=run_loading(options))
    metrics = retrieval.run(data)

    directions: dict[str, dict[str, float]] = {"image to text": {}, "text to image": {}}
    for name, value in metrics.items():
        direction, _, depth = name.partition(".")
        directions["image to text" if direction == "i2t" else "text to image"][depth] = value
    finish(
        options,
        title=f"Image-text retrieval of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint([options.captions_json], {"images": retrieval.coverage[0].scored}),
        coverage=retrieval.coverage,
        figure=lambda: accuracy_bars(directions, title=f"{options.model}: retrieval recall"),
    )

"""`clim-eval regions`: region classification on a COCO-style data set."""

from argparse import Namespace

from clim_data.command_line import Commands, add_command

from clim_eval.commands.options import (
    add_data_options,
    add_model_options,
    add_readout_options,
    add_run_options,
)
from clim_eval.commands.shared import (
    PROTOCOLS,
    class_rows,
    command_config,
    finish,
    load_model,
    region_data,
    region_file,
    tell_skipped,
)
from clim_eval.evaluators.regions import RegionClassification
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.provenance import data_fingerprint


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "regions",
        run,
        "name annotated boxes and masks, mean accuracy over classes",
    )
    add_model_options(parser, "64 patches, which is 1024 for patches of 16")
    add_data_options(parser)
    add_readout_options(parser)
    add_run_options(parser)


def run(options: Namespace) -> None:
    """Region classification on a COCO-style data set."""
    model = load_model(options)
    data, annotations = region_data(options, model), region_file(options)
    classes = class_rows(options, model, data.class_names)
    evaluator = RegionClassification(
        model,
        classes,
        outputs=options.outputs,
        crops=options.crops,
        **PROTOCOLS[options.protocol][1],
        batch_size=options.batch_size,
        workers=options.workers,
        progress=True,
    )
    rows = evaluator.collect(data)
    metrics = evaluator.summarize(rows)
    tell_skipped(rows.unreadable)
    if not metrics:
        raise ValueError(
            f"{annotations} has no region of 64 to 1048576 pixels: check that it belongs to "
            "--images"
        )
    readouts: dict[str, dict[str, float]] = {name: {} for name in rows.ranks}
    for name, value in metrics.items():
        readout, _, rest = name.partition(".")
        readouts[readout][rest] = value
    shown = [
        name
        for name in ("thing.mAcc1", "stuff.mAcc1", "thing.mAcc5", "stuff.mAcc5")
        if f"boxes.{name}" in metrics
    ]
    finish(
        options,
        title=f"Region classification of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint([annotations], {**rows.counts(), "unreadable": len(rows.unreadable)}),
        figure=lambda: accuracy_bars(
            readouts, metrics=shown, title=f"{options.model}: mean class accuracy"
        ),
    )

"""`clim-eval regions`: region classification on a COCO-style data set."""

from argparse import Namespace

from clim_data.command_line import Commands, add_command

from clim_eval.commands.options import (
    TRAINING_PX,
    add_data_options,
    add_model_options,
    add_readout_options,
    add_run_options,
)
from clim_eval.commands.shared import (
    PROTOCOLS,
    check_report_folder,
    class_rows,
    command_config,
    finish,
    load_model,
    region_data,
    region_file,
    run_loading,
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
    add_model_options(parser, TRAINING_PX)
    add_data_options(parser)
    add_readout_options(parser)
    add_run_options(parser)


def run(options: Namespace) -> None:
    """Classify the regions of a COCO-style data set."""
    check_report_folder(options.out)
    model = load_model(options)
    data, annotations = region_data(options, model), region_file(options)
    classes = class_rows(options, model, data.class_names)
    evaluator = RegionClassification(
        model,
        classes,
        outputs=options.outputs,
        crops=options.crops,
        **PROTOCOLS[options.protocol][1],
        loading=run_loading(options),
    )
    rows = evaluator.collect(data)
    metrics = evaluator.summarize(rows)
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
        data=data_fingerprint([annotations], rows.counts()),
        coverage=rows.coverage,
        figure=lambda: accuracy_bars(
            readouts, metrics=shown, title=f"{options.model}: mean class accuracy"
        ),
    )

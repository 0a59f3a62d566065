"""`clim-eval readouts`: the readouts of one model side by side, at one or more sizes."""

from argparse import Namespace

from clim_data.command_line import Commands, add_command
from clim_models import Readout

from clim_eval.commands.options import (
    add_class_source_options,
    add_data_options,
    add_model_options,
    add_run_options,
)
from clim_eval.commands.shared import (
    check_report_folder,
    class_rows,
    command_config,
    finish,
    load_model,
    region_data,
    region_file,
    run_loading,
)
from clim_eval.evaluators.readouts import ReadoutComparison
from clim_eval.pictures.bars import accuracy_bars
from clim_eval.reports.provenance import data_fingerprint

METRICS = ("boxes.mAcc1", "masks.mAcc1", "mIoU", "sign")


def add(commands: Commands) -> None:
    """Add the command to the subparsers of `clim-eval`."""
    parser = add_command(
        commands,
        "readouts",
        run,
        "compare ways to read a model's map: box and mask accuracy, mIoU, sign",
    )
    add_model_options(parser)
    parser.add_argument(
        "--image-px",
        type=int,
        nargs="+",
        metavar="PX",
        help="sides of the input in pixels; default: the size of the pretraining",
    )
    parser.add_argument(
        "--readouts",
        nargs="+",
        choices=tuple(readout.value for readout in Readout),
        metavar="READOUT",
        help=f"of {', '.join(Readout)}; default: all that the tower has",
    )
    add_data_options(parser)
    add_class_source_options(parser)
    add_run_options(parser, batch_size=4)


def run(options: Namespace) -> None:
    """Compare the readouts of a model on annotated images."""
    check_report_folder(options.out)
    model = load_model(options)
    chosen = _chosen(options, mixes="mix" in model.tower.supports)

    metrics: dict[str, float] = {}
    bars: dict[str, dict[str, float | None]] = {}
    for px in options.image_px or [max(model.image_size)]:
        view = Namespace(**vars(options))
        view.image_px, view.crops, view.protocol, view.outputs = px, False, "exact", ["masks"]
        data = region_data(view, model)
        evaluator = ReadoutComparison(
            model,
            class_rows(options, model, data.class_names),
            readouts=chosen,
            loading=run_loading(options),
        )
        found = evaluator.run(data)
        for readout in chosen:
            row = f"{readout.value} {px} px"
            values = {name: found[f"{readout.value}.{name}"] for name in METRICS}
            bars[row] = dict(values)
            metrics.update({f"{row}.{name}": value for name, value in values.items()})

    finish(
        options,
        title=f"Readouts of {options.model}",
        metrics=metrics,
        config=command_config(options, model),
        data=data_fingerprint([region_file(options)], {"images": evaluator.coverage[0].scored}),
        coverage=evaluator.coverage,
        figure=lambda: accuracy_bars(bars, metrics=METRICS, title=f"Readouts of {options.model}"),
    )


def _chosen(options: Namespace, *, mixes: bool) -> list[Readout]:
    """Return the readouts of --readouts; without it those that the tower has."""
    if options.readouts:
        return [Readout(name) for name in options.readouts]
    return [readout for readout in Readout if mixes or not readout.mixes]

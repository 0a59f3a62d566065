"""A comparison from its plan to its report. Started again, it does only what is missing."""

from collections.abc import Callable
from pathlib import Path

import torch
from clim_eval import weights_of_run
from clim_eval.reports import to_jsonable
from clim_models import RegionModel

from clim_train.experiments.claims import claim_folder
from clim_train.experiments.comparison.data import ComparisonData, Metrics
from clim_train.experiments.comparison.plan import SUMMARY, Plan, Prepare, Results
from clim_train.experiments.comparison.runner import ArmRunner
from clim_train.experiments.console import Stages
from clim_train.run.peers import AgreedError
from clim_train.run.stopping import TrainingStopped

WriteReport = Callable[[Path, Plan, Results, ComparisonData, RegionModel], str]
"""Write the report of a comparison to a folder and return the text to print."""


def compare(
    folder: Path, plan: Plan, model: RegionModel, prepare: Prepare, write_report: WriteReport
) -> str:
    """Run the unfinished parts of a comparison, write its report to `folder` and return its tables.

    Raises ValueError when `folder` holds a comparison with other options or data, and
    ComparisonStopped when it was asked to stop.
    """
    claim_folder(
        folder, {"options": to_jsonable(plan.options), "sources": to_jsonable(plan.sources)}
    )
    stages = Stages(3 + len(plan.seeds) * len(plan.arms))
    stages.begin("data")
    data = prepare(folder / "data", model)
    runner = ArmRunner(model, data, plan, folder)

    stages.begin("measuring the start")
    results = Results({plan.start: [runner.measure_start()]}, {}, {plan.start: runner.start})
    _print_summary(plan, plan.start, results.rows[plan.start][0])

    for seed in plan.seeds:
        for name, arm in plan.arms.items():
            stages.begin(f"{arm.title}, seed {seed}: {plan.options.steps} steps, then measuring")
            try:
                metrics, along = runner.run(name, seed)
            except TrainingStopped as stopped:
                raise ComparisonStopped(stopped.step) from None
            results.rows.setdefault(arm.title, []).append(metrics)
            _print_summary(plan, arm.title, metrics)

            for alpha, found in along.items():
                points = results.points.setdefault(name, {})
                points.setdefault(alpha, []).append(found)
                _print_summary(plan, arm.mixed_title(alpha), found)

    stages.begin("figures and report")
    for name, arm in plan.arms.items():
        trained = weights_of_run(runner.run_folder(name, plan.seeds[0])).student
        results.towers[arm.title] = {**runner.start, **trained}
    return write_report(folder, plan, results, data, model)


class ComparisonStopped(TrainingStopped):
    """A training of a comparison was asked to stop; its checkpoint of `step` is saved.

    Unlike another run, the comparison itself continues it.
    """

    def __init__(self, step: int) -> None:
        AgreedError.__init__(
            self, f"stopped at step {step}, checkpoint saved: the same command continues"
        )
        self.step = step


def machine_of(model: RegionModel) -> str:
    """Return a description of the hardware for reports: the GPU's name, or the number of
    threads."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    threads = torch.get_num_threads()
    return f"{threads} {'thread' if threads == 1 else 'threads'} of a CPU"


def _print_summary(plan: Plan, title: str, metrics: Metrics) -> None:
    shown = SUMMARY if plan.summary is None else plan.summary
    figures = [f"{name} {100 * metrics[key]:.1f} %" for name, key in shown.items()]
    if "cost.step_s" in metrics:
        figures.append(f"{metrics['cost.step_s']:.2f} s/step")
    print(f"      {title}: {', '.join(figures)}", flush=True)

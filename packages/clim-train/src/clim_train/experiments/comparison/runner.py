"""Training and measuring the arms of a comparison. What is finished stays in the folder and is not
done again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clim_data.files import write_json
from clim_eval import alpha_sweep, weights_of_run
from clim_models import RegionModel

from clim_train.config import TrainConfig
from clim_train.experiments.comparison.arms import Arm, arm_config
from clim_train.experiments.comparison.cost import PeakMemory, step_seconds
from clim_train.experiments.comparison.data import ComparisonData, Metrics
from clim_train.experiments.comparison.measure import Measurement, pseudo_labels
from clim_train.experiments.comparison.plan import Plan
from clim_train.experiments.image_towers import image_tower, set_image_tower
from clim_train.methods.clim import ClimTask
from clim_train.methods.text_features import TextFeatures
from clim_train.options.paths import with_absolute_paths


class ArmRunner:
    """Trainer of the arms of one plan, all from the same weights, and of their figures.

    Args:
        model: has the start weights, before and after each call.
        folder: gets `start.json` and a run folder for each arm and seed.
    """

    def __init__(self, model: RegionModel, data: ComparisonData, plan: Plan, folder: Path) -> None:
        self.model = model
        self.data = data
        self.plan = plan
        self.folder = folder
        self.start = image_tower(model)
        # The text tower is frozen in every arm, so its features hold for all of them.
        self.texts = TextFeatures(model, size=65536)
        self.measurement = Measurement(
            model, data, outputs=plan.outputs, workers=plan.options.workers
        )

    def run_folder(self, name: str, seed: int) -> Path:
        """Return the run folder of an arm."""
        return self.folder / "runs" / f"{name}-seed{seed}"

    def measure_start(self) -> Metrics:
        """Measure the untouched model; its figures stay in `start.json`."""
        path = self.folder / "start.json"
        if not path.exists():
            write_json(path, self.measurement.run(crops=True), indent=2)
        return json.loads(path.read_text())

    def run(self, name: str, seed: int) -> tuple[Metrics, dict[float, Metrics]]:
        """Train and measure an arm; finished parts are not repeated.

        Returns:
            Its figures and costs, and its figures at each alpha.
        """
        arm, options = self.plan.arms[name], self.plan.options
        labels, label_seconds = self.folder / "data" / "labels.json", 0.0
        if arm.needs_labels:
            label_seconds = pseudo_labels(options, self.data.train, labels)

        run_folder = self.run_folder(name, seed)
        config = arm_config(
            arm,
            options.lrs[name],
            options,
            self.data.train,
            labels=labels,
            folder=run_folder,
            seed=seed,
        )
        self._train(arm, config)
        metrics, points = self._measure(run_folder, self.plan.alphas_of(name))
        return {**metrics, **self._costs(arm, run_folder, label_seconds)}, points

    def _costs(self, arm: Arm, run_folder: Path, label_seconds: float) -> Metrics:
        cost: Mapping[str, float | None] = json.loads((run_folder / "cost.json").read_text())
        seconds, steps = float(cost["seconds"] or 0.0), int(cost["steps"] or 1)
        found: Metrics = {
            "cost.step_s": seconds / steps,
            "cost.prepare_s": label_seconds,
            "cost.total_s": seconds + label_seconds,
            "cost.images": arm.images(self.plan.options),
            "cost.pixels": arm.pixels(self.plan.options),
        }
        if (peak := cost["peak_gib"]) is not None:
            found["cost.peak_gib"] = peak
        return found

    def _train(self, arm: Arm, config: TrainConfig) -> None:
        """Train an arm, or continue its training.

        `cost.json` is written at the end, so an arm that has one is trained.
        """
        folder = Path(config.run.folder)
        if (folder / "cost.json").exists():
            return

        begun = (folder / "config.json").exists()
        # An arm trains in this process alone; its folder names the ZeRO stage that ran.
        recorded = with_absolute_paths(replace(config, engine=config.engine.for_ranks(1)))
        if begun and with_absolute_paths(TrainConfig.load(config.run.folder)) != recorded:
            raise ValueError(
                f"{folder} was begun with other options: delete it, or choose another folder with "
                "--out"
            )

        set_image_tower(self.model, self.start)
        memory = PeakMemory()
        with memory.measured():
            train(self.model, config, arm, texts=self.texts, resume=begun)
        seconds, steps = step_seconds(config)
        set_image_tower(self.model, self.start)
        write_json(
            folder / "cost.json",
            {"seconds": seconds, "steps": steps, "peak_gib": memory.gib},
            indent=2,
        )
        # An export has the frozen text tower as well (90 MB of clim-tiny): one is enough.
        if not self.plan.exports(arm, config.run.seed):
            shutil.rmtree(folder / "model", ignore_errors=True)

    def _measure(
        self, run_folder: Path, alphas: tuple[float, ...]
    ) -> tuple[Metrics, dict[float, Metrics]]:
        """Measure the trained weights and their mixtures with the start, as far as
        `figures.json` lacks them."""
        path = run_folder / "figures.json"
        known: dict[str, Metrics] = json.loads(path.read_text()) if path.exists() else {}
        ends = weights_of_run(run_folder)

        for alpha in (*alphas, 1.0):
            if f"{alpha:g}" in known:
                continue

            def measure(crops: bool = alpha == 1.0) -> Metrics:
                return self.measurement.run(crops=crops)

            figures = alpha_sweep(self.model, ends, [alpha], {"at": measure})[alpha]
            known[f"{alpha:g}"] = {
                name.removeprefix("at."): value for name, value in figures.items()
            }
            write_json(path, known, indent=2)
        return known["1"], {alpha: known[f"{alpha:g}"] for alpha in alphas}


def train(
    model: RegionModel,
    config: TrainConfig,
    arm: Arm,
    *,
    texts: TextFeatures,
    resume: bool = False,
) -> None:
    """Train `model` in place as `config` says.

    Args:
        arm: may have a task of its own.
        texts: text features of `model`, for the methods that use captions.
        resume: continue the run in the folder.
    """
    # deepspeed is imported by the trainer: it takes seconds, and --help has no use for it.
    from clim_train.build import build_loader, build_task, gradient_path, trained_px
    from clim_train.trainer import Trainer

    model.eval_px = trained_px(config)
    model.freeze(config.model.unlocked_blocks, path=gradient_path(config))
    loader = build_loader(config)
    if arm.task is None:
        task = build_task(config, model, getattr(loader, "class_names", ()))
    else:
        task = arm.task(config.task, model)
    if isinstance(task, ClimTask):
        task.text_features = texts
    Trainer(config, task, loader, resume=resume).fit()

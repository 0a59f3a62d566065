"""Training and measuring the arms of a comparison; what is finished is kept in the folder and not
done again."""

import json
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from clim_data.files import write_json
from clim_eval import (
    ImageTextRetrieval,
    RegionClassification,
    RegionRows,
    ZeroShotClassification,
    alpha_sweep,
    run_ends,
)
from clim_eval.commands.main import build_parser
from clim_models import RegionModel

from clim_train.config import TrainConfig
from clim_train.experiments.comparison.arms import ArmOptions, arm_config
from clim_train.experiments.comparison.cost import PeakMemory, step_seconds
from clim_train.experiments.comparison.data import ComparisonData, TrainingData
from clim_train.experiments.image_towers import image_tower, set_image_tower
from clim_train.options.paths import with_absolute_paths

Metrics = dict[str, float]


class Measurement:
    """All figures of the model as it is: {"GROUP.READOUT.all.mAcc1", "retrieval.t2i.R@1",
    "zeroshot.GROUP.top1", ...}.

    Texts are encoded in the first call only, since every arm keeps the text tower frozen.
    """

    def __init__(
        self, model: RegionModel, data: ComparisonData, *, batch_size: int = 16, workers: int = 0
    ) -> None:
        self.model, self.data = model, data
        self.loading = {"workers": workers}
        self.batch_size = batch_size
        self.retrieval = ImageTextRetrieval(
            model, batch_size=batch_size, keep_texts=True, **self.loading
        )

    def run(self, *, crops: bool) -> Metrics:
        """crops: also each region from its own crop, one more pass per region, as the reference."""
        found: Metrics = {}
        for part in self.data.regions:
            evaluator = RegionClassification(
                self.model, part.embeddings, crops=crops, batch_size=self.batch_size, **self.loading
            )
            rows = evaluator.collect(part.scenes)
            for group, labels in part.groups.items():
                figures = evaluator.summarize(rows_with_labels(rows, labels))
                found |= {f"{group}.{name}": value for name, value in figures.items()}
        found |= {
            f"retrieval.{name}": value
            for name, value in self.retrieval.run(self.data.captions).items()
        }
        for group, part in self.data.zeroshot.items():
            evaluator = ZeroShotClassification(
                self.model, part.embeddings, batch_size=4 * self.batch_size, **self.loading
            )
            found |= {
                f"zeroshot.{group}.{name}": value
                for name, value in evaluator.run(part.images).items()
            }
        return found


def rows_with_labels(rows: RegionRows, labels: Sequence[int]) -> RegionRows:
    """The regions whose right class is one of `labels`; what they were compared with stays the
    same."""
    kept = np.isin(rows.labels, np.asarray(list(labels)))
    columns = {
        name: getattr(rows, name)[kept] for name in ("image_ids", "labels", "is_thing", "areas")
    }
    readouts = {
        name: {readout: values[kept] for readout, values in getattr(rows, name).items()}
        for name in ("ranks", "similarities")
    }
    return replace(rows, **columns, **readouts)


def pseudo_labels(options: ArmOptions, data: TrainingData, output: Path) -> tuple[Path, float]:
    """The boxes of the training scenes, named by the start model from what the captions say
    (`clim-eval pseudo-label`).

    Returns the COCO json and the seconds it took (when it was made; a second call does nothing).
    """
    cost = output.with_suffix(".cost.json")
    if not (output.exists() and cost.exists()):
        begin = time.monotonic()
        parsed = _label_options(options, data, output)
        parsed.run(parsed)
        write_json(cost, {"seconds": time.monotonic() - begin}, indent=2)
    return output, json.loads(cost.read_text())["seconds"]


def _label_options(options: ArmOptions, data: TrainingData, output: Path) -> Namespace:
    words = [
        "pseudo-label",
        "--model",
        options.model.name,
        "--images",
        *data.scenes,
        "--boxes",
        str(data.proposals),
    ]
    words += [
        "--nouns",
        str(data.nouns),
        "--out",
        str(output),
        "--workers",
        str(options.workers),
        "--overwrite",
    ]
    if options.model.pretrained is not None:
        words += ["--pretrained", options.model.pretrained]
    if options.device != "auto":
        words += ["--device", options.device]
    if data.captions is not None:
        words += ["--captions-json", str(data.captions)]
    return build_parser().parse_args(words)


class ArmRunner:
    """Trains arms of one comparison from the same weights, and measures them.

    model: has the start weights; its weights are the start's again after each call.
    """

    def __init__(
        self,
        model: RegionModel,
        data: ComparisonData,
        options: ArmOptions,
        folder: Path,
        *,
        alphas: Sequence[float],
    ) -> None:
        self.model, self.data, self.options, self.folder, self.alphas = (
            model,
            data,
            options,
            folder,
            tuple(alphas),
        )
        self.start = image_tower(model)
        self.measurement = Measurement(model, data, workers=options.workers)

    def measure_start(self) -> Metrics:
        """Figures of the untouched model; kept in `start.json`."""
        path = self.folder / "start.json"
        if not path.exists():
            write_json(path, self.measurement.run(crops=True), indent=2)
        return json.loads(path.read_text())

    def run(self, arm: str, seed: int) -> tuple[Metrics, dict[float, Metrics]]:
        """Figures and cost of an arm, and figures at each alpha; trained and measured unless that
        is done already."""
        labels, label_seconds = self.folder / "data" / "labels.json", 0.0
        if arm == "regionclip":
            labels, label_seconds = pseudo_labels(self.options, self.data.train, labels)
        run_folder = self.folder / "runs" / f"{arm}-seed{seed}"
        config = arm_config(
            arm, self.options, self.data.train, labels=labels, folder=run_folder, seed=seed
        )
        self._train(config)
        cost = json.loads((run_folder / "cost.json").read_text())
        metrics, points = self._measure(run_folder)
        return {**metrics, **self._cost(arm, cost, label_seconds)}, points

    def _cost(self, arm: str, cost: Mapping[str, float | None], label_seconds: float) -> Metrics:
        found = {
            "cost.step_s": cost["seconds"] / cost["steps"],
            "cost.prepare_s": label_seconds,
            "cost.total_s": cost["seconds"] + label_seconds,
            "cost.images": self.options.images(arm),
            "cost.pixels": self.options.pixels_of(arm),
        }
        return found if cost["peak_gib"] is None else {**found, "cost.peak_gib": cost["peak_gib"]}

    def _train(self, config: TrainConfig) -> None:
        """Trains an arm, or what is left of it, unless its cost is known, which is written at the
        end."""
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
            train(self.model, config, resume=begun)
        seconds, steps = step_seconds(config)
        set_image_tower(self.model, self.start)
        write_json(
            folder / "cost.json",
            {"seconds": seconds, "steps": steps, "peak_gib": memory.gib},
            indent=2,
        )

    def _measure(self, run_folder: Path) -> tuple[Metrics, dict[float, Metrics]]:
        path = run_folder / "figures.json"
        known: dict[str, Metrics] = json.loads(path.read_text()) if path.exists() else {}
        ends = run_ends(run_folder)
        for alpha in (*self.alphas, 1.0):
            if f"{alpha:g}" not in known:
                figures = alpha_sweep(
                    self.model,
                    ends,
                    [alpha],
                    {"at": lambda last=alpha == 1.0: self.measurement.run(crops=last)},
                )[alpha]
                known[f"{alpha:g}"] = {
                    name.removeprefix("at."): value for name, value in figures.items()
                }
                write_json(path, known, indent=2)
        return known["1"], {alpha: known[f"{alpha:g}"] for alpha in self.alphas}


def train(model: RegionModel, config: TrainConfig, *, resume: bool = False) -> None:
    """Train `model` in place as `config` says; `resume` continues what the run folder holds."""
    # deepspeed is imported by the trainer: it takes seconds, and --help has no use for it.
    from clim_train.build import build_loader, build_task, gradient_path
    from clim_train.trainer import Trainer

    model.freeze(config.model.unlocked_blocks, path=gradient_path(config))
    loader = build_loader(config)
    task = build_task(config, model, getattr(loader, "class_names", ()))
    Trainer(config, task, loader, resume=resume).fit()

"""Open-vocabulary detectors in minutes: ``python -m clim_train.detect_quickstart``.

F-ViT (arXiv 2310.01403) in small is trained on composed scenes with boxes of base concepts. It is
built on three frozen towers, with one budget: the shipped clim-tiny, the same after more
image-level training, and after CLIM. The detectors are measured on scenes by a vendor that was
never trained on. These show base concepts, and novel ones that no part was trained on; the
detectors look for all of them by name.

- start: the pretrained clim-tiny.
- image: after image-level training, the control of CLIM with the same steps.
- clim: after CLIM.

It ends with a table, `report.md`, `report.json` and pictures of found boxes.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from clim_data.command_line import typed
from clim_data.files import write_json
from clim_eval.reports import to_jsonable
from clim_models import RegionModel
from clim_models.detection import TwoStageDetector, open_detector

from clim_train.experiments.claims import claim_folder
from clim_train.experiments.comparison.command import tiny_model
from clim_train.experiments.comparison.data import Metrics
from clim_train.experiments.console import Stages, cpu_minutes, free_folder
from clim_train.experiments.detection.detectors import (
    BACKBONES,
    Towers,
    build_detector,
    detector_config,
    tower_options,
    train_detector,
)
from clim_train.experiments.detection.measure import Answers, answers, measure_detector
from clim_train.experiments.detection.options import DetectionOptions
from clim_train.experiments.detection.report import (
    NOTE,
    found_pictures,
    write_detection_report,
)
from clim_train.experiments.detection.scenes import (
    DetectionScenes,
    detection_scenes,
    scene_files,
)
from clim_train.experiments.detection.stored import StoredMaps
from clim_train.experiments.image_towers import set_image_tower
from clim_train.run.randomness import seed_everything

# Scenes that are drawn in the report.
_PICTURES = 6


class DetectorRuns:
    """Trainer of the detectors of one quick start, and of their figures. Finished parts are not
    repeated.

    Args:
        model: the shipped clim-tiny.
        folder: gets a run folder for each backbone and seed, with `figures.json`.
        towers: where the towers come from.
    """

    def __init__(
        self, model: RegionModel, options: DetectionOptions, folder: Path, towers: Towers
    ) -> None:
        self.model, self.options = model, options
        self.folder, self.towers = folder, towers
        self.scenes: DetectionScenes = detection_scenes(folder / "data", model, options)
        self.pictures: dict[str, list[Answers]] = {}

    def run(self, name: str, seed: int) -> Metrics:
        """Train and measure the detector on one backbone; finished parts are not repeated."""
        backbone = BACKBONES[name]
        weights, pretrained = self.towers.weights(backbone, seed)
        folder = self.folder / "runs" / f"{name}-seed{seed}"
        path = folder / "figures.json"
        is_drawn = backbone.title in self.pictures
        if path.exists() and is_drawn:
            return json.loads(path.read_text())

        start = self.towers.runner.start
        set_image_tower(self.model, weights)
        if not (folder / "model" / "detector.json").exists():
            self._train(folder, pretrained, seed)
        detector = open_detector(folder, device=self.model.device)

        files = scene_files(self.scenes.test)
        wanted = files[:_PICTURES] if path.exists() else files
        maps = StoredMaps.of(detector, wanted, with_clip=True)
        if not path.exists():
            write_json(path, measure_detector(detector, maps, self.scenes), indent=2)
        if not is_drawn:
            self.pictures[backbone.title] = self._answers(detector, maps)
        set_image_tower(self.model, start)
        return json.loads(path.read_text())

    def _train(self, folder: Path, pretrained: str, seed: int) -> None:
        seed_everything(seed)
        scenes = self.scenes
        detector = build_detector(self.model, scenes.base_classes, scenes.background, self.options)
        maps = StoredMaps.of(detector, scene_files(scenes.train), with_clip=False)
        config = detector_config(
            self.options, scenes, pretrained=pretrained, folder=folder, seed=seed
        )
        train_detector(detector, maps, config, scenes)

    def _answers(self, detector: TwoStageDetector, maps: StoredMaps) -> list[Answers]:
        assert maps.clip is not None
        first = slice(0, _PICTURES)
        few = StoredMaps([level[first] for level in maps.pyramid], maps.clip[first], maps.frame)
        return list(answers(detector, few, self.scenes))


def compare_backbones(
    folder: Path,
    options: DetectionOptions,
    *,
    backbones: Sequence[str],
    seeds: Sequence[int],
    towers: Path | None = None,
) -> str:
    """Run the unfinished parts of the comparison, write its report to `folder` and return its
    table.

    Args:
        backbones: names of `BACKBONES`.
        seeds: of towers and heads.
        towers: folder of a CLIM quick start with the same steps, whose towers are taken; None
            trains them in `folder`.

    Raises:
        ValueError: one of the folders holds something with other options.
    """
    of_towers = tower_options(options)
    claim_folder(folder, {"detectors": to_jsonable(options)})
    towers = towers or folder / "towers"
    claim_folder(towers, {"options": to_jsonable(of_towers)})

    stages = Stages(2 + len(backbones) * len(seeds))
    stages.begin("data")
    model = tiny_model(of_towers)
    runs = DetectorRuns(model, options, folder, Towers(model, of_towers, towers))

    rows: dict[str, list[Metrics]] = {}
    for seed in seeds:
        for name in backbones:
            title = BACKBONES[name].title
            stages.begin(f"{title}, seed {seed}: tower, detector of {options.steps} steps")
            metrics = runs.run(name, seed)
            rows.setdefault(title, []).append(metrics)
            shown = ", ".join(f"{key} {100 * value:.1f} %" for key, value in metrics.items())
            print(f"      {title}: {shown}", flush=True)

    stages.begin("pictures and report")
    figures = found_pictures(runs.pictures, runs.scenes)
    return write_detection_report(folder, options, rows, runs.scenes, figures)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of report and runs (default: detect-quickstart, or detect-quickstart-2, ...); "
        "one that was begun with the same options is finished",
    )
    parser.add_argument(
        "--towers",
        type=Path,
        metavar="QUICKSTART",
        help="folder of a CLIM quick start whose towers are taken (default: train them)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="several give mean and spread"
    )
    parser.add_argument(
        "--backbones",
        choices=tuple(BACKBONES),
        nargs="+",
        default=list(BACKBONES),
        help="which towers get a detector",
    )
    for field in dataclasses.fields(DetectionOptions):
        option = f"--{field.name.replace('_', '-')}"
        kind = int if field.default is None else type(field.default)
        parser.add_argument(option, type=kind, default=field.default)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the quick start of detectors."""
    args = build_parser().parse_args(argv)
    names = [field.name for field in dataclasses.fields(DetectionOptions)]
    options = DetectionOptions(**{name: getattr(args, name) for name in names})

    begin = time.monotonic()
    out = args.out or free_folder(Path("detect-quickstart"))
    table = compare_backbones(
        out, options, backbones=args.backbones, seeds=args.seeds, towers=args.towers
    )
    print(f"\n{table}\n\n{NOTE}\n")
    seconds = time.monotonic() - begin
    print(f"{cpu_minutes():.1f} CPU minutes, {seconds:.0f} s. Report: {out / 'report.md'}")
    run = out / "runs" / f"{args.backbones[-1]}-seed{args.seeds[0]}"
    program = typed("clim-eval")
    print(f'next:\n  {program} detect IMAGE "a cat" "a sofa" --checkpoint {run}')

"""The main job on real image-text pairs in minutes: ``python -m clim_train.quickstart``.

Starts from the shipped clim-tiny (a CLIP with image-level pretraining), trains it further in three
ways with one budget (see `quickstart_arms`), and measures region and image accuracy on scenes of a
vendor and of concepts that were never seen. Ends with a table, `report.md`, `report.json` and
figures.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from clim_models import RegionModel, create_model, interpolate_weights

from clim_train.experiments.console import Stages, free_folder
from clim_train.experiments.image_towers import image_tower, set_image_tower
from clim_train.experiments.pretrain_tiny import unpadded
from clim_train.experiments.quickstart.arms import (
    ALPHAS,
    ARMS,
    START,
    ArmOptions,
    arm_config,
    evaluate,
    train_arm,
)
from clim_train.experiments.quickstart.data import SPLITS, QuickstartData, prepare_data
from clim_train.experiments.quickstart.report import similarity_pictures, write_quickstart_report
from clim_train.methods.text_features import TextFeatures

NOTE = (
    "One pass: RoIAlign of the dense map (value path of the last block). Value path: without "
    "residual and MLP. "
    "Crops: one extra pass per region. Drawings are not photographs: these figures say nothing "
    "about photographs."
)


class Comparison:
    """Arms that start from the same image tower, evaluated on the same data; `results` has a list
    of runs per arm."""

    def __init__(
        self, model: RegionModel, data: QuickstartData, options: ArmOptions, folder: Path
    ) -> None:
        self.model, self.data, self.options, self.folder = model, data, options, folder
        self.start, self.texts = image_tower(model), TextFeatures(model, size=65536)
        self.results: dict[str, list[dict[str, float]]] = {}
        self.towers = {"before": self.start}

    def evaluate(self, title: str, *, crops: bool = True) -> None:
        """Evaluate the model as it is, keep the metrics as one run of arm `title`, print two of
        them."""
        metrics = evaluate(self.model, self.data, crops=crops)
        self.results.setdefault(title, []).append(metrics)
        part = self.data.sets[0].name
        region, image = (100 * metrics[f"{part}.{name}"] for name in ("boxes.mAcc1", "image.top1"))
        print(
            f"      {title}: region {region:.1f} %, image {image:.1f} % ({part.replace('_', ' ')})",
            flush=True,
        )

    def train(self, arm: str, seed: int) -> None:
        """Train one arm from the start and evaluate it; CLIM also at three mixtures with the
        start."""
        set_image_tower(self.model, self.start)
        folder = self.folder / "runs" / f"{arm}-seed{seed}"
        config = arm_config(arm, self.options, shards=self.data.shards, folder=folder, seed=seed)
        train_arm(arm, self.model, config, self.texts)
        self.evaluate(ARMS[arm])
        if arm == "clim":
            trained = image_tower(self.model)
            self.towers.setdefault("after CLIM", trained)
            for alpha in ALPHAS:
                set_image_tower(self.model, interpolate_weights(trained, self.start, alpha))
                self.evaluate(f"CLIM, alpha {alpha}", crops=False)


def run(
    folder: Path,
    options: ArmOptions,
    *,
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0,),
    split: str = "test",
    scenes: int = 200,
    scene_px: int = 192,
    classes: int | None = None,
) -> str:
    """Run the arms for every seed, write the report to `folder` and return the printed tables.

    Raises ValueError when `folder` already holds runs.
    """
    if (folder / "runs").exists():
        raise ValueError(
            f"{folder} already holds a quick start; delete it, or choose another folder with --out"
        )
    stages = Stages(3 + len(seeds) * len(arms))
    stages.begin("clim-tiny, shards and scenes")
    model = create_model(
        "clim-tiny", pretrained="emoji", device="cuda" if torch.cuda.is_available() else "cpu"
    )
    model.tokenizer = unpadded(model.tokenizer)
    data = prepare_data(
        folder / "data", model, which=split, scenes=scenes, scene_px=scene_px, classes=classes
    )
    comparison = Comparison(model, data, options, folder)
    stages.begin("evaluating the start")
    comparison.evaluate(START)
    for seed in seeds:
        for arm in arms:
            stages.begin(
                f"training and evaluating: {ARMS[arm]}, seed {seed}, {options.steps} steps"
            )
            comparison.train(arm, seed)
    stages.begin("figures and report")
    config = {
        "options": dataclasses.asdict(options),
        "seeds": list(seeds),
        "split": split,
        "scene_px": scene_px,
    }
    return write_quickstart_report(
        folder,
        comparison.results,
        parts=data.sets,
        config=config,
        pictures=similarity_pictures(model, comparison.towers, data.sets[0]),
        notes=[NOTE],
    )


def main(argv: list[str] | None = None) -> None:
    """Command line of the quick start."""
    defaults = ArmOptions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of report and runs (default: quickstart, or quickstart-2, ...)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="several give mean and spread"
    )
    parser.add_argument(
        "--arms", choices=tuple(ARMS), nargs="+", default=list(ARMS), help="which arms to train"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="val: for choices")
    parser.add_argument(
        "--scenes", type=int, default=200, help="composed scenes per evaluation set"
    )
    parser.add_argument(
        "--scene-px", type=int, default=192, help="side at which the model sees a scene"
    )
    parser.add_argument(
        "--classes", type=int, help="only so many classes of each set, for a quick look"
    )
    for field in dataclasses.fields(ArmOptions):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            default=getattr(defaults, field.name),
        )
    args = parser.parse_args(argv)
    options = ArmOptions(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(ArmOptions)}
    )
    begin = time.monotonic()
    out = args.out or free_folder(Path("quickstart"))
    tables = run(
        out,
        options,
        arms=args.arms,
        seeds=args.seeds,
        split=args.split,
        scenes=args.scenes,
        scene_px=args.scene_px,
        classes=args.classes,
    )
    print(f"\n{tables}\n\n{NOTE}\n")
    print(f"{time.monotonic() - begin:.0f} s. Report: {(out / 'report.md').resolve()}")


if __name__ == "__main__":
    main()

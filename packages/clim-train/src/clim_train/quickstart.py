"""The main job on real image-text pairs in minutes: ``python -m clim_train.quickstart``.

Starts from the shipped clim-tiny (a CLIP with image-level pretraining), trains it further in three ways with one
budget (see `quickstart_arms`), and measures region and image accuracy on scenes of a vendor and of concepts that were
never seen. Ends with a table, `report.md`, `report.json` and figures.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path

import torch
from clim_models import create_model, interpolate_weights

from clim_train.pretrain_tiny import unpadded
from clim_train.quickstart_arms import (
    ALPHAS,
    ARMS,
    START,
    ArmOptions,
    arm_config,
    evaluate,
    image_tower,
    set_image_tower,
    train_arm,
)
from clim_train.quickstart_data import SPLITS, prepare_data
from clim_train.quickstart_report import similarity_pictures, write_quickstart_report
from clim_train.tasks.clim import TextFeatures

NOTE = (
    "One pass: RoIAlign of the dense map (value path of the last block). Value path: without residual and MLP. "
    "Crops: one extra pass per region. Drawings are not photographs: these figures say nothing about photographs."
)


class Stages:
    """Prints numbered stages with the time since the start."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()

    def result(self, metrics: Mapping[str, float], part: str) -> None:
        """Print the two figures that matter most for a set."""
        region, image = (metrics[f"{part}.{name}"] for name in ("boxes.mAcc1", "image.top1"))
        print(f"      {part.replace('_', ' ')}: region {100 * region:.1f} %, image {100 * image:.1f} %", flush=True)

    def begin(self, what: str) -> None:
        self.done += 1
        print(f"[{self.done}/{self.total}] {time.monotonic() - self.start:4.0f} s  {what}", flush=True)


def run(
    folder: Path,
    options: ArmOptions,
    *,
    seeds: tuple[int, ...] = (0,),
    split: str = "test",
    scenes: int = 200,
    scene_px: int = 192,
    classes: int | None = None,
) -> str:
    """Run every arm for every seed, write the report to `folder` and return the printed tables.

    Raises ValueError when `folder` already holds runs.
    """
    if (folder / "runs").exists():
        raise ValueError(f"{folder} already holds a quick start; delete it, or choose another folder with --out")
    stages = Stages(2 + len(seeds) * (len(ARMS) + 1) + 1)
    stages.begin("clim-tiny, shards and scenes")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = create_model("clim-tiny", pretrained="emoji", device=device)
    model.tokenizer = unpadded(model.tokenizer)
    data = prepare_data(folder / "data", model, which=split, scenes=scenes, scene_px=scene_px, classes=classes)
    start, texts = image_tower(model), TextFeatures(model, size=65536)
    stages.begin(f"evaluating: {START}")
    first = data.sets[0].name
    arms: dict[str, list[dict[str, float]]] = {START: [evaluate(model, data)]}
    stages.result(arms[START][0], first)
    towers = {"before": start}
    for seed in seeds:
        for arm, title in ARMS.items():
            stages.begin(f"training and evaluating: {title}, seed {seed}, {options.steps} steps")
            set_image_tower(model, start)
            config = arm_config(
                arm, options, shards=data.shards, folder=folder / "runs" / f"{arm}-seed{seed}", seed=seed
            )
            train_arm(arm, model, config, texts)
            arms.setdefault(title, []).append(evaluate(model, data))
            stages.result(arms[title][-1], first)
        trained = image_tower(model)
        towers.setdefault("after CLIM", trained)
        stages.begin(f"evaluating: CLIM and pretrained weights interpolated, seed {seed}")
        for alpha in ALPHAS:
            set_image_tower(model, interpolate_weights(trained, start, alpha))
            arms.setdefault(f"CLIM, alpha {alpha}", []).append(evaluate(model, data, crops=False))
    stages.begin("figures and report")
    config = {"options": dataclasses.asdict(options), "seeds": list(seeds), "split": split, "scene_px": scene_px}
    return write_quickstart_report(
        folder,
        arms,
        parts=data.sets,
        config=config,
        pictures=similarity_pictures(model, towers, data.sets[0]),
        notes=[NOTE],
    )


def free_folder(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist yet."""
    candidates = chain([path], (path.with_name(f"{path.name}-{i}") for i in count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())


def main(argv: list[str] | None = None) -> None:
    """Command line of the quick start."""
    defaults = ArmOptions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="folder of report and runs (default: quickstart, or quickstart-2, ...)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="several give mean and spread")
    parser.add_argument("--split", choices=SPLITS, default="test", help="val: for choices")
    parser.add_argument("--scenes", type=int, default=200, help="composed scenes per evaluation set")
    parser.add_argument("--scene-px", type=int, default=192, help="side at which the model sees a scene")
    parser.add_argument("--classes", type=int, help="only so many classes of each set, for a quick look")
    for field in dataclasses.fields(ArmOptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=getattr(defaults, field.name))
    args = parser.parse_args(argv)
    options = ArmOptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(ArmOptions)})
    begin = time.monotonic()
    out = args.out or free_folder(Path("quickstart"))
    tables = run(
        out,
        options,
        seeds=tuple(args.seeds),
        split=args.split,
        scenes=args.scenes,
        scene_px=args.scene_px,
        classes=args.classes,
    )
    print(f"\n{tables}\n\n{NOTE}\n")
    print(f"{time.monotonic() - begin:.0f} s. Report: {(out / 'report.md').resolve()}")


if __name__ == "__main__":
    main()

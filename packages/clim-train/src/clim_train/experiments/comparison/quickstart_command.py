"""The main job on real image-text pairs in minutes: ``python -m clim_train.quickstart``.

Without options it measures the shipped weights before and after CLIM on composed scenes. With
--train it trains CLIM and its controls (`clim_train.experiments.comparison.quickstart`). Both end
with a table, a picture, a report, and the commands that come next.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from clim_data.command_line import typed
from clim_models import AFTER_CLIM, SHIPPED, RegionModel

from clim_train.experiments.comparison import words
from clim_train.experiments.comparison.command import tiny_model
from clim_train.experiments.comparison.data import ComparisonData
from clim_train.experiments.comparison.drawings import SPLITS, DrawingOptions, embedded_data
from clim_train.experiments.comparison.quickstart import (
    ARMS,
    GROUPS,
    QuickstartOptions,
    quickstart_plan,
    write_quickstart,
)
from clim_train.experiments.comparison.run import compare
from clim_train.experiments.comparison.shipped import SCENES, measure_shipped
from clim_train.experiments.console import cpu_minutes, free_folder

# Options that need --train.
TRAINING = ("seeds", "arms", *(field.name for field in dataclasses.fields(QuickstartOptions)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of report and runs (default: quickstart, or quickstart-2, ...); one that was "
        "begun with the same options is finished",
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="train CLIM and its controls (default: measure the shipped weights, before and after)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="several give mean and spread (0)")
    parser.add_argument(
        "--arms", choices=tuple(ARMS), nargs="+", help="which arms to train (all, CLIM first)"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="val: for choices")
    parser.add_argument(
        "--scenes", type=int, help=f"composed scenes of each group ({SCENES}; --train: 200)"
    )
    parser.add_argument(
        "--scene-px", type=int, default=192, help="side at which the model sees a scene"
    )
    parser.add_argument(
        "--classes", type=int, help="use only the first classes of each set, for a quick look"
    )
    for field in dataclasses.fields(QuickstartOptions):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), help=f"({field.default})")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the quick start."""
    args = build_parser().parse_args(argv)
    _check(args)
    drawings = DrawingOptions(
        split=args.split,
        scenes=args.scenes or (200 if args.train else SCENES),
        train_scenes=0,
        scene_px=args.scene_px,
        classes=args.classes,
        retrieve="drawings",
        names=GROUPS[args.split],
    )
    begin = time.monotonic()
    out = args.out or free_folder(Path("quickstart"))
    tables = _train_arms(out, args, drawings) if args.train else measure_shipped(out, drawings)
    print(f"\n{tables}\n\n{words.NOTE}\n")
    seconds = time.monotonic() - begin
    print(f"{cpu_minutes():.1f} CPU minutes, {seconds:.0f} s. Report: {out / 'report.md'}")
    print(f"picture: {out / 'figures' / 'before_after.png'}")
    print("\n".join(next_commands(out, args, drawings)))


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for options of a training without --train."""
    given = [f"--{name.replace('_', '-')}" for name in TRAINING if getattr(args, name) is not None]
    if given and not args.train:
        raise ValueError(f"{', '.join(given)} only matter for a training: add --train")


def _train_arms(out: Path, args: argparse.Namespace, drawings: DrawingOptions) -> str:
    """Train the arms, measure them, and return the tables."""
    names = [field.name for field in dataclasses.fields(QuickstartOptions)]
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options = QuickstartOptions(**chosen).arm_options()
    plan = quickstart_plan(options, drawings, args.arms or list(ARMS), args.seeds or [0])

    def prepare(folder: Path, model: RegionModel) -> ComparisonData:
        return embedded_data(folder, model, drawings)

    return compare(out, plan, tiny_model(options), prepare, write_quickstart)


def next_commands(out: Path, args: argparse.Namespace, drawings: DrawingOptions) -> list[str]:
    """Return the commands that come next, in the form that works in this shell."""
    program = typed("clim-eval")
    group = drawings.names.get("seen", "seen")
    scenes = out / "data" / "scenes" / f"{drawings.split}_{group}" / "images"
    scene = min(scenes.iterdir())
    after = AFTER_CLIM
    if args.train and "clim" in (args.arms or ARMS):
        after = str(out / "runs" / f"clim-seed{(args.seeds or [0])[0]}")
    lines = [
        "next:",
        f"  {program} show --example",
        f'  {program} show {scene} "a face" "a train" --compare {SHIPPED} {after}',
    ]
    if not args.train:
        in_hatch = "HATCH_ENV_ACTIVE" in os.environ
        again = "hatch run quickstart" if in_hatch else "python -m clim_train.quickstart"
        lines.append(f"  {again} --train    # CLIM and its controls")
    lines.append(f"  {typed('clim-train')} clim_quickstart --data.images YOUR_PHOTOS")
    return lines

"""Region training methods side by side: ``python -m clim_train.compare``.

CLIM, CLIPSelf, RegionCLIP-style training and image-level training start from one model, with one
budget of steps and pixels. One table has what they gain (region accuracy), what they lose
(retrieval, zero-shot) and what they cost (time, memory). Without data options it runs on the
embedded drawings; with --coco on a folder in COCO layout. A command that is started again in the
same folder does only what is missing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_data.files import write_json
from clim_eval import run_ends
from clim_eval.reports import plain
from clim_models import RegionModel, create_model

from clim_train.experiments.comparison.arms import ARMS, START, ArmOptions
from clim_train.experiments.comparison.coco import CocoFiles, coco_data
from clim_train.experiments.comparison.data import ComparisonData
from clim_train.experiments.comparison.drawings import embedded_data
from clim_train.experiments.comparison.measure import ArmRunner
from clim_train.experiments.comparison.report import look_figures, write_comparison
from clim_train.experiments.console import Stages
from clim_train.experiments.pretrain_tiny import unpadded
from clim_train.experiments.quickstart.data import SPLITS
from clim_train.options.sections import ModelConfig
from clim_train.recipes.backbones import EVA02, OPENAI_VIT
from clim_train.recipes.clim import clim_quickstart
from clim_train.run.peers import AgreedError
from clim_train.run.stopping import EXIT_STOPPED, TrainingStopped

# Chosen on the validation split, see docs/comparison.md.
EMBEDDED_LRS = {
    "image": 3e-4,
    "clim": 3e-3,
    "clipself": 3e-3,
    "clipself_boxes": 3e-3,
    "regionclip": 3e-3,
}
COCO_LR = 1e-5  # of the papers, for every method
ALPHAS = (0.3, 0.5, 0.7)
DRAWING_OPTIONS = ("split", "scenes", "train_scenes", "classes")
COCO_OPTIONS = (
    "model",
    "pretrained",
    "unlocked_blocks",
    "proposals",
    "nouns",
    "shards",
    "zeroshot",
    "unseen",
)


@dataclass(frozen=True)
class Plan:
    """What to compare. `sources` says which data these are; a folder holds one such set of options
    and data."""

    options: ArmOptions
    sources: Mapping[str, Any]
    arms: Sequence[str] = tuple(ARMS)
    seeds: Sequence[int] = (0,)
    alphas: Sequence[float] = ALPHAS


def compare(
    folder: Path,
    plan: Plan,
    model: RegionModel,
    prepare: Callable[[Path, RegionModel], ComparisonData],
) -> str:
    """Run what is missing of a comparison, write the report to `folder` and return its main table.

    prepare: makes the data below a folder. Raises ValueError when `folder` holds a comparison with
    other options.
    """
    _claim(folder, plan)
    stages = Stages(3 + len(plan.seeds) * len(plan.arms))
    stages.begin("data")
    data = prepare(folder / "data", model)
    runner = ArmRunner(model, data, plan.options, folder, alphas=plan.alphas)
    stages.begin("measuring the start")
    rows: dict[str, list] = {START: [runner.measure_start()]}
    points: dict[str, dict[float, list]] = {}
    for seed in plan.seeds:
        for arm in plan.arms:
            stages.begin(f"{ARMS[arm]}, seed {seed}: {plan.options.steps} steps, then measuring")
            metrics, along = runner.run(arm, seed)
            rows.setdefault(ARMS[arm], []).append(metrics)
            for alpha, found in along.items():
                points.setdefault(ARMS[arm], {}).setdefault(alpha, []).append(found)
            print(f"      {_summary(metrics)}", flush=True)
    stages.begin("figures and report")
    towers = {START: runner.start}
    for arm in plan.arms:
        trained = run_ends(folder / "runs" / f"{arm}-seed{plan.seeds[0]}").student
        towers[ARMS[arm]] = {**runner.start, **trained}
    return write_comparison(
        folder,
        rows,
        points,
        arms=plan.arms,
        options=plan.options,
        data=data,
        about={
            "sources": plan.sources,
            "arms": list(plan.arms),
            "seeds": list(plan.seeds),
            "alphas": list(plan.alphas),
            "machine": _machine(model),
        },
        pictures=look_figures(model, towers, data.regions[0]),
    )


def _summary(metrics: Mapping[str, float]) -> str:
    shown = {"region": "seen.boxes.all.mAcc1", "t2i R@1": "retrieval.t2i.R@1"}
    figures = [f"{title} {100 * metrics[name]:.1f} %" for title, name in shown.items()]
    return ", ".join([*figures, f"{metrics['cost.step_s']:.2f} s/step"])


def _machine(model: RegionModel) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{torch.get_num_threads()} threads of a CPU"


def _claim(folder: Path, plan: Plan) -> None:
    """Notes the options in the folder, or checks that they are those it was begun with."""
    path = folder / "options.json"
    mine = json.loads(json.dumps({"options": plain(plan.options), "sources": plain(plan.sources)}))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, mine, indent=2)
        return
    known = json.loads(path.read_text())
    different = [
        f"{name} ({known[part].get(name)} there, {mine[part].get(name)} now)"
        for part in mine
        for name in sorted({*mine[part], *known[part]})
        if mine[part].get(name) != known[part].get(name)
    ]
    if different:
        raise ValueError(
            f"{folder} holds a comparison with other options: {'; '.join(different)}. "
            "Choose another folder with --out, or delete it"
        )


def embedded_plan(args: argparse.Namespace) -> tuple[Plan, RegionModel, Callable]:
    """The comparison on the embedded drawings, from clim-tiny."""
    _refuse(args, COCO_OPTIONS, "add --coco ROOT, or leave these out")
    recipe = clim_quickstart()
    options = ArmOptions(
        model=recipe.model,
        optim=recipe.optim,
        lrs={**EMBEDDED_LRS, **args.lr},
        **_given(
            args,
            "steps",
            "batch_size",
            "min_singles",
            "region_px",
            "single_px",
            "workers",
            "device",
        ),
    )
    model = create_model(
        options.model.name, pretrained=options.model.pretrained, device=_device(options)
    )
    model.tokenizer = unpadded(model.tokenizer)
    sizes = {"which": args.split or "test", **_given(args, "scenes", "train_scenes", "classes")}
    plan = Plan(options, {"data": "embedded drawings", **sizes}, args.arms, args.seeds, args.alphas)
    return (
        plan,
        model,
        lambda folder, model: embedded_data(folder, model, scene_px=options.region_px, **sizes),
    )


def coco_plan(args: argparse.Namespace) -> tuple[Plan, RegionModel, Callable]:
    """The comparison on a folder in COCO layout, from any model. Raises ValueError for missing
    options."""
    _refuse(args, DRAWING_OPTIONS, "leave --coco out, or these")
    if missing := [
        f"--{name}" for name in ("model", "proposals", "nouns") if getattr(args, name) is None
    ]:
        raise ValueError(
            f"--coco needs {', '.join(missing)}: `clim-data proposals` makes proposals, `clim-data "
            "nouns` nouns"
        )
    files = CocoFiles(
        args.coco,
        args.proposals,
        args.nouns,
        shards=tuple(args.shards),
        zeroshot=args.zeroshot,
        unseen=args.unseen,
    )
    given = _given(
        args, "steps", "batch_size", "min_singles", "region_px", "single_px", "workers", "device"
    )
    known = ModelConfig(
        name=args.model, pretrained=args.pretrained, unlocked_blocks=args.unlocked_blocks or 12
    )
    model = create_model(known.name, pretrained=known.pretrained)
    given = {
        "region_px": 64 * model.stride,
        "single_px": model.image_size[0],
        "batch_size": 32,
        "min_singles": 0,
    } | given
    options = ArmOptions(
        model=known,
        optim=OPENAI_VIT if known.name.startswith("ViT") else EVA02,
        lrs={**dict.fromkeys(ARMS, COCO_LR), **args.lr},
        mask_duplicate_captions=False,
        background="white",
        **given,
    )
    plan = Plan(options, plain(files), args.arms, args.seeds, args.alphas)
    prepare = lambda folder, model: coco_data(folder, model, files, image_px=options.region_px)  # noqa: E731
    return plan, model.to(_device(options)), prepare


def _device(options: ArmOptions) -> str:
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.device


def _refuse(args: argparse.Namespace, names: Sequence[str], fix: str) -> None:
    given = [
        f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, [])
    ]
    if given:
        raise ValueError(f"{', '.join(given)} would have no effect: {fix}")


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; the others keep the defaults of what takes them."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


class _LearningRate(argparse.Action):
    """--lr ARM=VALUE ...: a dict."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        rates = {}
        for text in values:
            arm, _, value = text.partition("=")
            try:
                rates[arm] = float(value)
            except ValueError:
                parser.error(f"{option_string} {text}: write ARM=VALUE, such as clim=1e-5")
        namespace.lr = {**namespace.lr, **rates}


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("comparison"), help="folder of report and runs"
    )
    parser.add_argument(
        "--arms", choices=tuple(ARMS), nargs="+", default=list(ARMS), help="which methods to train"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="several give mean and spread"
    )
    parser.add_argument(
        "--alphas",
        type=float,
        nargs="*",
        default=list(ALPHAS),
        help="weight interpolations to measure",
    )
    parser.add_argument(
        "--lr",
        nargs="+",
        action=_LearningRate,
        default={},
        metavar="ARM=VALUE",
        help="learning rates",
    )
    parser.add_argument("--steps", type=int, help="optimizer steps of every arm (250)")
    parser.add_argument(
        "--batch-size",
        type=int,
        help="images of a step of CLIM (144; COCO: 32); others: same pixels",
    )
    parser.add_argument(
        "--min-singles",
        type=int,
        help="of these, at least so many are not in mosaics (57; COCO: 0)",
    )
    parser.add_argument(
        "--region-px", type=int, help="side of mosaics and scenes (192; COCO: 64 patches)"
    )
    parser.add_argument(
        "--single-px", type=int, help="side of single images (64; COCO: the model's own)"
    )
    parser.add_argument("--workers", type=int, help="loading processes (0)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="default: a GPU if there is one"
    )
    drawings = parser.add_argument_group("embedded drawings")
    drawings.add_argument("--split", choices=SPLITS, help="val: for choices; default: test")
    drawings.add_argument("--scenes", type=int, help="composed scenes per evaluation set (200)")
    drawings.add_argument("--train-scenes", type=int, help="composed scenes to train on (1000)")
    drawings.add_argument(
        "--classes", type=int, help="only so many concepts of each group, for a quick look"
    )
    coco = parser.add_argument_group("COCO layout")
    coco.add_argument(
        "--coco",
        type=Path,
        metavar="ROOT",
        help="folder of COCO 2017; default: the embedded drawings",
    )
    coco.add_argument("--model", help="open_clip name, such as EVA02-B-16")
    coco.add_argument("--pretrained", help="open_clip tag, checkpoint file, or run folder")
    coco.add_argument("--unlocked-blocks", type=int, help="how many of the last blocks train (12)")
    coco.add_argument("--proposals", type=Path, help="COCO json of boxes (clim-data proposals)")
    coco.add_argument(
        "--nouns", type=Path, help="names that boxes may get, one a line (clim-data nouns)"
    )
    coco.add_argument(
        "--shards",
        nargs="+",
        default=[],
        help="training images with captions, instead of ROOT/train2017",
    )
    coco.add_argument("--zeroshot", type=Path, help="folder with a folder of images for each class")
    coco.add_argument(
        "--unseen",
        type=Path,
        help="class names, one a line: images whose captions name one are left out",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the comparison; status 75 when it was stopped in a training, 1 when one
    failed."""
    parser = build_parser()
    args = parser.parse_args(argv)
    begin = time.monotonic()
    try:
        plan, model, prepare = coco_plan(args) if args.coco else embedded_plan(args)
        table = compare(args.out, plan, model, prepare)
    except TrainingStopped as stopped:
        print(
            f"stopped at step {stopped.step}, checkpoint saved: the same command continues",
            file=sys.stderr,
        )
        sys.exit(EXIT_STOPPED)
    except AgreedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except (ValueError, FileNotFoundError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {' '.join(str(error).split())}\n")
    print(
        f"\n{table}\n\n{time.monotonic() - begin:.0f} s. Report: "
        f"{(args.out / 'report.md').resolve()}"
    )


if __name__ == "__main__":
    main()

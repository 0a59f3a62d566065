"""Region training methods side by side: ``python -m clim_train.compare``.

CLIM, CLIPSelf, RegionCLIP-style training and image-level training start from one model, with one
budget of steps and pixels. One table has what they gain (region accuracy), what they lose
(retrieval, zero-shot) and what they cost (time, memory). Without data options it runs on the
embedded drawings; with --coco on a folder in COCO layout. A command that is started again in the
same folder does only what is missing.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from clim_data.command_line import given
from clim_eval.reports import to_jsonable
from clim_models import RegionModel, create_model

from clim_train.experiments.comparison.arms import ARMS, ArmOptions
from clim_train.experiments.comparison.coco import CocoFiles, coco_data
from clim_train.experiments.comparison.data import ComparisonData
from clim_train.experiments.comparison.drawings import SPLITS, DrawingOptions, embedded_data
from clim_train.experiments.comparison.plan import ALPHAS, Plan, Prepare
from clim_train.experiments.comparison.report import write_comparison
from clim_train.experiments.comparison.run import compare
from clim_train.experiments.tiny_texts import unpadded_tokenizer
from clim_train.options.sections import ModelConfig
from clim_train.recipes.backbones import EVA02, OPENAI_VIT
from clim_train.recipes.clim import clim_quickstart

# Chosen on the validation split, see docs/comparison.md.
EMBEDDED_LRS = {
    "image": 3e-4,
    "clim": 3e-3,
    "clipself": 3e-3,
    "clipself_boxes": 3e-3,
    "regionclip": 3e-3,
}
COCO_LR = 1e-5  # The learning rate of the papers, for every method.
ARM_OPTIONS = (
    "steps",
    "batch_size",
    "min_singles",
    "region_px",
    "single_px",
    "workers",
    "device",
)
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


def embedded_plan(args: argparse.Namespace) -> tuple[Plan, RegionModel, Prepare]:
    """Plan the comparison on the embedded drawings, from clim-tiny."""
    _refuse(args, COCO_OPTIONS, "add --coco ROOT, or leave these out")
    recipe = clim_quickstart()
    options = ArmOptions(
        model=recipe.model,
        optim=recipe.optim,
        lrs={**EMBEDDED_LRS, **args.lr},
        **given(args, *ARM_OPTIONS),
    )
    drawings = DrawingOptions(scene_px=options.region_px, **given(args, *DRAWING_OPTIONS))
    model = tiny_model(options)

    def prepare(folder: Path, model: RegionModel) -> ComparisonData:
        return embedded_data(folder, model, drawings)

    sources = {"data": "embedded drawings", **to_jsonable(drawings)}
    return _plan(args, options, sources), model, prepare


def coco_plan(args: argparse.Namespace) -> tuple[Plan, RegionModel, Prepare]:
    """Plan the comparison on a folder in COCO layout, from any model.

    Raises ValueError for missing options.
    """
    _refuse(args, DRAWING_OPTIONS, "leave --coco out, or these")
    needed = ("model", "proposals", "nouns")
    if missing := [f"--{name}" for name in needed if getattr(args, name) is None]:
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
    known = ModelConfig(
        name=args.model, pretrained=args.pretrained, unlocked_blocks=args.unlocked_blocks or 12
    )
    model = create_model(known.name, pretrained=known.pretrained)
    defaults = {
        "region_px": 64 * model.stride,
        "single_px": model.image_size[0],
        "batch_size": 32,
        "min_singles": 0,
    }
    options = ArmOptions(
        model=known,
        optim=OPENAI_VIT if known.name.startswith("ViT") else EVA02,
        lrs={**dict.fromkeys(ARMS, COCO_LR), **args.lr},
        mask_duplicate_captions=False,
        background="white",
        **{**defaults, **given(args, *ARM_OPTIONS)},
    )

    def prepare(folder: Path, model: RegionModel) -> ComparisonData:
        return coco_data(folder, model, files, image_px=options.region_px)

    return _plan(args, options, to_jsonable(files)), model.to(device_of(options)), prepare


def tiny_model(options: ArmOptions) -> RegionModel:
    """Build the model of the embedded drawings; its texts are tokenized without padding."""
    model = create_model(
        options.model.name, pretrained=options.model.pretrained, device=device_of(options)
    )
    model.tokenizer = unpadded_tokenizer(model.tokenizer)
    return model


def device_of(options: ArmOptions) -> str:
    """Return the device that `options.device` names, a GPU where there is one for "auto"."""
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.device


def _plan(args: argparse.Namespace, options: ArmOptions, sources: dict[str, Any]) -> Plan:
    arms = {name: ARMS[name] for name in args.arms}
    return Plan(options, sources, arms, seeds=args.seeds, alphas=args.alphas)


def _refuse(args: argparse.Namespace, names: Sequence[str], fix: str) -> None:
    """Raise ValueError where one of the options `names` was given."""
    found = [name for name in names if getattr(args, name) not in (None, [])]
    if found:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in found)
        raise ValueError(f"{words} would have no effect: {fix}")


class _LearningRate(argparse.Action):
    """Collects --lr ARM=VALUE ... in a dict."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        rates = {}
        for text in values:
            arm, _, value = text.partition("=")
            if arm not in ARMS:
                parser.error(f"{option_string} {text}: the arms are {', '.join(ARMS)}")
            try:
                rates[arm] = float(value)
            except ValueError:
                parser.error(f"{option_string} {text}: write ARM=VALUE, such as clim=1e-5")
        namespace.lr = {**namespace.lr, **rates}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
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
    _add_arm_options(parser)
    _add_drawing_options(parser.add_argument_group("embedded drawings"))
    _add_coco_options(parser.add_argument_group("COCO layout"))
    return parser


def _add_arm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="optimizer steps of every arm (250)")
    parser.add_argument(
        "--batch-size",
        type=int,
        help="images per step of CLIM (144; COCO: 32); the other arms get the same pixels",
    )
    parser.add_argument(
        "--min-singles",
        type=int,
        help="how many of these, at least, are not in mosaics (57; COCO: 0)",
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


def _add_drawing_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--split", choices=SPLITS, help="val: for choices; default: test")
    group.add_argument("--scenes", type=int, help="composed scenes per evaluation set (200)")
    group.add_argument("--train-scenes", type=int, help="composed scenes to train on (1000)")
    group.add_argument(
        "--classes", type=int, help="use only the first concepts of each group, for a quick look"
    )


def _add_coco_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--coco",
        type=Path,
        metavar="ROOT",
        help="folder of COCO 2017; default: the embedded drawings",
    )
    group.add_argument("--model", help="open_clip name, such as EVA02-B-16")
    group.add_argument("--pretrained", help="open_clip tag, checkpoint file, or run folder")
    group.add_argument("--unlocked-blocks", type=int, help="how many of the last blocks train (12)")
    group.add_argument("--proposals", type=Path, help="COCO json of boxes (clim-data proposals)")
    group.add_argument(
        "--nouns", type=Path, help="names that boxes may get, one per line (clim-data nouns)"
    )
    group.add_argument(
        "--shards",
        nargs="+",
        default=[],
        help="training images with captions, instead of ROOT/train2017",
    )
    group.add_argument(
        "--zeroshot", type=Path, help="folder with a folder of images for each class"
    )
    group.add_argument(
        "--unseen",
        type=Path,
        help="class names, one per line: images whose captions name one are skipped",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the comparison; see `compare` for what it raises."""
    args = build_parser().parse_args(argv)
    begin = time.monotonic()
    plan, model, prepare = coco_plan(args) if args.coco else embedded_plan(args)
    table = compare(args.out, plan, model, prepare, write_comparison)

    seconds = time.monotonic() - begin
    print(f"\n{table}\n\n{seconds:.0f} s. Report: {(args.out / 'report.md').resolve()}")

"""``clim-eval regions | retrieval | zeroshot | alpha | embed | pseudo-label | report | show``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.command_line import run_command, without_launcher_options
from clim_data.processes import Ranks, local_device

from clim_eval.commands.embed import run_embed
from clim_eval.commands.regions import run_regions
from clim_eval.commands.report import run_report
from clim_eval.commands.retrieval import run_retrieval
from clim_eval.commands.shared import PROTOCOLS
from clim_eval.commands.show import run_show
from clim_eval.commands.zeroshot import run_zeroshot
from clim_eval.evaluators.regions import BOX_FEATURES, READOUTS
from clim_eval.version import __version__

SHARED = ("regions", "retrieval", "zeroshot", "alpha")  # evaluations whose items the ranks share
TEMPLATE_NAMES = ("vild", "photo", "name")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(words)
    return run_command(f"clim-eval {options.command}", _run, options)


def _run(options: argparse.Namespace) -> None:
    started = _join_process_group(options)
    try:
        options.run(options)
    finally:
        if started:
            dist.destroy_process_group()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clim-eval",
        description="Evaluate region-trained CLIP models and picture what they see.",
    )
    parser.add_argument("--version", action="version", version=f"clim-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    regions = _command(
        commands,
        "regions",
        run_regions,
        "name annotated boxes and masks, mean accuracy over classes",
    )
    _model_options(regions, "64 patches, which is 1024 for patches of 16")
    _data_options(regions)
    _readout_options(regions)
    _run_options(regions)

    retrieval = _command(
        commands, "retrieval", run_retrieval, "image-text retrieval recall in both directions"
    )
    _model_options(retrieval, "the model's own")
    retrieval.add_argument("--images", type=Path, required=True, help="folder of images")
    retrieval.add_argument(
        "--captions-json", type=Path, required=True, help="COCO captions annotation file"
    )
    _run_options(retrieval, batch_size=64)

    zeroshot = _command(
        commands, "zeroshot", run_zeroshot, "zero-shot classification of images, top-1 and top-5"
    )
    _model_options(zeroshot, "the model's own")
    zeroshot.add_argument(
        "--images", type=Path, required=True, help="folder with a folder for each class, or shards"
    )
    zeroshot.add_argument(
        "--names", type=Path, help="class names, one a line; default: the names of the folders"
    )
    zeroshot.add_argument(
        "--class-embeddings", type=Path, help=".safetensors of `embed`, or .npy; default: computed"
    )
    _class_options(zeroshot)
    _run_options(zeroshot, batch_size=64)

    _add_alpha(commands)

    embed = _command(commands, "embed", run_embed, "compute class embeddings from prompt templates")
    _model_options(embed)
    source = embed.add_mutually_exclusive_group(required=True)
    source.add_argument("--names", type=Path, help="text file with one class name or noun per line")
    source.add_argument(
        "--categories-json", type=Path, help="COCO-style file; classes in the order of their ids"
    )
    _class_options(embed)
    embed.add_argument(
        "--out", type=Path, required=True, help="NAME.safetensors, or NAME.npy with NAME.npy.json"
    )

    _add_pseudo_label(commands)

    report = _command(commands, "report", run_report, "put several reports side by side")
    report.add_argument(
        "reports", nargs="+", type=Path, metavar="RUN_OR_JSON", help="report.json or its folder"
    )
    report.add_argument("--title", default="Comparison")
    report.add_argument("--out", type=Path, help="folder for report.json, report.md and figures")

    show = _command(commands, "show", run_show, "draw where the model sees each text in an image")
    show.add_argument("image", type=Path, metavar="IMAGE")
    show.add_argument("texts", nargs="+", metavar="TEXT")
    _model_options(show, "64 patches on the longest side")
    show.add_argument(
        "--draw", choices=("box", "mask", "none"), default="box", help="what marks the best region"
    )
    show.add_argument("--readout", choices=("value_residual", "value"), default="value_residual")
    show.add_argument(
        "--templates",
        choices=TEMPLATE_NAMES,
        help="fill each TEXT into templates; default: as it is",
    )
    show.add_argument(
        "--out", type=Path, help="PNG to write; default: IMAGE's name with .similarity.png, here"
    )
    return parser


def _add_alpha(commands: Any) -> None:
    alpha = _command(
        commands,
        "alpha",
        _later("commands.alpha", "run_alpha"),
        "evaluate a training at several weight interpolations",
    )
    alpha.add_argument(
        "run_folder", nargs="?", type=Path, metavar="RUN", help="run folder of an exported training"
    )
    alpha.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        default=[0, 0.3, 0.5, 0.7, 1],
        help="0: start, 1: trained",
    )
    alpha.add_argument("--student", help="instead of RUN: trained checkpoint")
    alpha.add_argument(
        "--teacher",
        help="instead of RUN: checkpoint, or open_clip tag, that the training started from",
    )
    alpha.add_argument("--model", help="open_clip name; a run folder knows its own")
    alpha.add_argument(
        "--image-px", type=int, help="side of the input for regions; default: 64 patches"
    )
    _device_options(alpha)
    _data_options(alpha, required=False)
    _readout_options(alpha)
    group = alpha.add_argument_group("image-level data")
    group.add_argument(
        "--captions-json", type=Path, help="COCO captions annotation file, for retrieval"
    )
    group.add_argument(
        "--caption-images", type=Path, help="folder of its images; default: --images"
    )
    group.add_argument(
        "--zeroshot-images", type=Path, help="folder with a folder for each class, or shards"
    )
    group.add_argument(
        "--zeroshot-names", type=Path, help="class names, one a line; default: names of the folders"
    )
    alpha.add_argument(
        "--keep-gb", type=float, default=4, help="decoded images kept between alphas, per process"
    )
    _run_options(alpha)


def _add_pseudo_label(commands: Any) -> None:
    label = _command(
        commands,
        "pseudo-label",
        _later("commands.pseudo_label", "run_pseudo_label"),
        "name class-agnostic boxes with nouns",
    )
    _model_options(label, "64 patches (for features of whole images)")
    group = label.add_argument_group("data")
    group.add_argument(
        "--images", nargs="+", required=True, metavar="SOURCE", help="folder of images, or shards"
    )
    group.add_argument(
        "--boxes",
        type=Path,
        required=True,
        help="COCO json of proposals; their categories do not count",
    )
    group.add_argument(
        "--nouns", type=Path, required=True, help="text, one a line, or embeddings of `embed`"
    )
    captions = group.add_mutually_exclusive_group()
    captions.add_argument(
        "--captions-json", type=Path, help="COCO captions; default: what the images bring"
    )
    captions.add_argument(
        "--no-captions", action="store_true", help="choose among all nouns for every image"
    )
    group.add_argument(
        "--min-box-px", type=float, default=8, help="smallest square root of a box's area, pixels"
    )
    group.add_argument(
        "--max-box-px", type=float, default=1024, help="largest square root of a box's area, pixels"
    )
    label.add_argument(
        "--features",
        choices=BOX_FEATURES,
        default="crops",
        help="crops: each box as an image of its own, what an untrained CLIP names best; boxes...: of the dense map",
    )
    label.add_argument(
        "--context", type=float, default=1.5, help="size of a crop in sizes of its box"
    )
    label.add_argument(
        "--min-score", type=float, default=0.0, help="least probability of the noun among all nouns"
    )
    label.add_argument(
        "--max-boxes", type=int, default=20, help="boxes per image, those with the best scores"
    )
    _class_options(label)
    label.add_argument(
        "--batch-size", type=int, help="crops (default 256) or whole images (8) per forward pass"
    )
    label.add_argument("--workers", type=int, default=0, help="loading processes")
    label.add_argument(
        "--part-images", type=int, default=512, help="images per part; a killed run loses one part"
    )
    label.add_argument(
        "--patience",
        type=float,
        default=1800,
        help="seconds rank 0 waits without news of the others",
    )
    label.add_argument(
        "--overwrite", action="store_true", help="replace an output of other input or options"
    )
    label.add_argument("--out", "--output", type=Path, required=True, help="COCO json to write")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, but not those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or isinstance(action.default, bool | list)
        return action.help if says_nothing else super()._get_help_string(action)


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, formatter_class=_Formatter)
    parser.set_defaults(run=run)
    return parser


def _model_options(parser: argparse.ArgumentParser, image_px: str = "") -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        help="open_clip name such as EVA02-B-16, or clim-tiny; a run folder knows its own",
    )
    group.add_argument(
        "--pretrained", help="open_clip tag, .pt or .safetensors file, or run folder"
    )
    if image_px:
        group.add_argument(
            "--image-px", type=int, help=f"side of the input in pixels; default: {image_px}"
        )
    _device_options(group)


def _device_options(group: Any) -> None:
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    group.add_argument("--device", help="default: cuda if there is one, else cpu")


def _later(module: str, name: str) -> Any:
    """A command whose module is imported when it runs: it brings open_clip, which takes seconds."""
    return lambda options: getattr(import_module(f"clim_eval.{module}"), name)(options)


def _data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--images", type=Path, required=required, help="folder of images, for example val2017"
    )
    source = group.add_mutually_exclusive_group(required=required)
    source.add_argument("--panoptic-json", type=Path, help="COCO panoptic annotation file")
    source.add_argument(
        "--instances-json", type=Path, help="COCO or LVIS instances annotation file"
    )
    group.add_argument(
        "--panoptic-dir",
        type=Path,
        help="folder of panoptic PNGs; default: beside the annotation file",
    )


def _readout_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=["boxes", "masks"],
        choices=READOUTS,
        metavar="READOUT",
        help=f"of {', '.join(READOUTS)}; default: boxes masks",
    )
    parser.add_argument(
        "--crops", action="store_true", help="also classify every region's crop (slow reference)"
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="exact",
        help="published: every rounding of the original evaluators, to compare with figures in papers",
    )
    parser.add_argument(
        "--class-embeddings", type=Path, help=".safetensors of `embed`, or .npy; default: computed"
    )
    _class_options(parser)


def _class_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--templates", choices=TEMPLATE_NAMES, default="vild", help="63 prompts, one, or the name"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of cached class embeddings; default: the user's cache"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="compute class embeddings anew, store nothing"
    )


def _run_options(parser: argparse.ArgumentParser, batch_size: int = 8) -> None:
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help="images per forward pass"
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_argument("--out", type=Path, help="folder for report.json, report.md and figures")


def _join_process_group(arguments: argparse.Namespace) -> bool:
    """Under torchrun or the deepspeed launcher, share the work between the ranks."""
    if Ranks.of_launcher().world_size < 2 or arguments.command not in SHARED:
        return False
    if arguments.device is None and torch.cuda.is_available():
        arguments.device = str(local_device())
        torch.cuda.set_device(arguments.device)
    dist.init_process_group("nccl" if str(arguments.device).startswith("cuda") else "gloo")
    return True

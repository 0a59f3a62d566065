"""``clim-eval regions | retrieval | embed | report | show``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from clim_eval.commands import PROTOCOLS, run_embed, run_regions, run_report, run_retrieval, run_show
from clim_eval.regions import READOUTS
from clim_eval.version import __version__

TEMPLATE_NAMES = ("vild", "photo", "name")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 when the input was wrong (one line on stderr says how to fix it)."""
    arguments = build_parser().parse_args(argv)
    started = _join_process_group(arguments)
    try:
        arguments.run(arguments)
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"clim-eval {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        if started:
            dist.destroy_process_group()
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clim-eval", description="Evaluate region-trained CLIP models and picture what they see."
    )
    parser.add_argument("--version", action="version", version=f"clim-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    regions = _command(commands, "regions", run_regions, "name annotated boxes and masks, mean accuracy over classes")
    _model_options(regions, "64 patches, which is 1024 for patches of 16")
    _data_options(regions)
    regions.add_argument(
        "--outputs",
        nargs="+",
        default=["boxes", "masks"],
        choices=READOUTS,
        metavar="READOUT",
        help=f"of {', '.join(READOUTS)}; default: boxes masks",
    )
    regions.add_argument("--crops", action="store_true", help="also classify every region's crop (slow reference)")
    regions.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        default="exact",
        help="published: every rounding of the original evaluators, to compare with figures in papers",
    )
    regions.add_argument("--class-embeddings", type=Path, help=".safetensors of `embed`, or .npy; default: computed")
    _class_options(regions)
    _run_options(regions)

    retrieval = _command(commands, "retrieval", run_retrieval, "image-text retrieval recall in both directions")
    _model_options(retrieval, "the model's own")
    retrieval.add_argument("--images", type=Path, required=True, help="folder of images")
    retrieval.add_argument("--captions-json", type=Path, required=True, help="COCO captions annotation file")
    _run_options(retrieval, batch_size=64)

    embed = _command(commands, "embed", run_embed, "compute class embeddings from prompt templates")
    _model_options(embed)
    source = embed.add_mutually_exclusive_group(required=True)
    source.add_argument("--names", type=Path, help="text file with one class name per line")
    source.add_argument("--categories-json", type=Path, help="COCO-style file; classes in the order of their ids")
    _class_options(embed)
    embed.add_argument("--out", type=Path, required=True, help="NAME.safetensors")

    report = _command(commands, "report", run_report, "put several reports side by side")
    report.add_argument("reports", nargs="+", type=Path, metavar="RUN_OR_JSON", help="report.json or its folder")
    report.add_argument("--title", default="Comparison")
    report.add_argument("--out", type=Path, help="folder for report.json, report.md and figures")

    show = _command(commands, "show", run_show, "draw where the model sees each text in an image")
    show.add_argument("image", type=Path, metavar="IMAGE")
    show.add_argument("texts", nargs="+", metavar="TEXT")
    _model_options(show, "64 patches on the longest side")
    show.add_argument("--draw", choices=("box", "mask", "none"), default="box", help="what marks the best region")
    show.add_argument("--readout", choices=("value_residual", "value"), default="value_residual")
    show.add_argument("--templates", choices=TEMPLATE_NAMES, help="fill each TEXT into templates; default: as it is")
    show.add_argument("--out", type=Path, help="PNG to write; default: IMAGE's name with .similarity.png, here")
    return parser


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
    group.add_argument("--model", help="open_clip name such as EVA02-B-16, or clim-tiny; a run folder knows its own")
    group.add_argument("--pretrained", help="open_clip tag, .pt or .safetensors file, or run folder")
    if image_px:
        group.add_argument("--image-px", type=int, help=f"side of the input in pixels; default: {image_px}")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    group.add_argument("--device", help="default: cuda if there is one, else cpu")


def _data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--images", type=Path, required=True, help="folder of images, for example val2017")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--panoptic-json", type=Path, help="COCO panoptic annotation file")
    source.add_argument("--instances-json", type=Path, help="COCO or LVIS instances annotation file")
    group.add_argument("--panoptic-dir", type=Path, help="folder of panoptic PNGs; default: beside the annotation file")


def _class_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--templates", choices=TEMPLATE_NAMES, default="vild", help="63 prompts, one, or the name")
    parser.add_argument("--cache", type=Path, help="folder of cached class embeddings; default: the user's cache")
    parser.add_argument("--no-cache", action="store_true", help="compute class embeddings anew, store nothing")


def _run_options(parser: argparse.ArgumentParser, batch_size: int = 8) -> None:
    parser.add_argument("--batch-size", type=int, default=batch_size, help="images per forward pass")
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_argument("--out", type=Path, help="folder for report.json, report.md and figures")


def _join_process_group(arguments: argparse.Namespace) -> bool:
    """Under torchrun or the deepspeed launcher, share the work between the ranks."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or arguments.command not in ("regions", "retrieval"):
        return False
    if arguments.device is None and torch.cuda.is_available():
        arguments.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(arguments.device)
    dist.init_process_group("nccl" if str(arguments.device).startswith("cuda") else "gloo")
    return True

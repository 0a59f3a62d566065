"""clim-eval and flmm as users start them, with `--device cuda` and with `--device cpu`: the same
results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from clim_data.pixels import decode_segmentation
from clim_eval.__main__ import main as clim_eval
from clim_models import create_model, save_model
from flmm import load_lmm
from flmm.__main__ import main as flmm
from flmm.demo import build_demo_sam
from flmm.experiments import build_grounded
from PIL import Image

from gpu_parts.drawn_data import NAMES, DrawnData, draw_data
from gpu_parts.exact import exact_float32
from gpu_parts.programs import devices_of_modules, quietly
from gpu_parts.record import Part

TINY_CLIP = "clim-gpu-run-tiny"
TINY_CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
# Rounding moves the edge of a mask by a pixel here and there, and now and then the box that prompts
# SAM.
PIXELS_APART = 0.01


@dataclass(frozen=True)
class Both:
    """Results of one command: what it wrote with `--device cpu`, and on the part's device."""

    cpu: Path
    device: Path

    def json(self, name: str) -> tuple[dict, dict]:
        """The same file of both."""
        return tuple(json.loads((folder / name).read_text()) for folder in (self.cpu, self.device))


def run(part: Part) -> None:
    data = draw_data(part.folder / "data", 2 if part.tiny else 8)
    with exact_float32():
        with part.guarded("flmm: demo models and heads"):
            model = demo_models(part.folder)
            for check in (ground, chat, eval_refcoco, eval_png, eval_viscot):
                with part.guarded(f"flmm {check.__name__.replace('_', ' ')}"):
                    check(Runner(part, flmm, model), data)
        with part.guarded("clim-eval: a CLIP with random weights"):
            model = random_clip(part)
            for check in (regions, show):
                with part.guarded(f"clim-eval {check.__name__}"):
                    check(Runner(part, clim_eval, model), data)


# -- models and how commands are run ---------------------------------------------------------------


def demo_models(folder: Path) -> list[str]:
    """The demo LMM and SAM that come with flmm, and new heads: options that name them."""
    quietly(flmm, ["demo-model", str(folder / "lmm")])
    sam = build_demo_sam()
    sam.save_pretrained(folder / "sam")
    model = build_grounded(load_lmm(folder / "lmm", dtype="float32"), sam)
    heads = model.save_heads(folder / "heads" / "heads.safetensors")
    named = {"lmm": str(folder / "lmm"), "sam": str(folder / "sam")}
    (heads.parent / "grounding.json").write_text(json.dumps(named))
    return ["--checkpoint", str(heads.parent), "--precision", "fp32"]


def random_clip(part: Part) -> list[str]:
    """A run folder with random weights: options that name it."""
    name = "ViT-B-16"
    if part.tiny:
        name = TINY_CLIP
        (part.folder / f"{name}.json").write_text(json.dumps(TINY_CLIP_CONFIG))
        open_clip.add_model_config(part.folder / f"{name}.json")
    torch.manual_seed(0)
    model = create_model(name)
    save_model(model, part.folder / "clip")
    return ["--pretrained", str(part.folder / "clip")]


@dataclass(frozen=True)
class Runner:
    """Runs commands of one program.

    Args:
        main: takes the arguments and returns the exit status.
        model: options that name the model.
    """

    part: Part
    main: Callable[[Sequence[str]], int]
    model: list[str]

    def both(self, name: str, *arguments: object, out: str = "") -> Both:
        """Run a command on the CPU and on the device; the arguments are those of `on`.

        A rehearsal, whose device is the CPU, runs it once and compares that run with itself.
        """
        device = self.on(self.part.device.type, name, *arguments, out=out, check=True)
        if not self.part.on_gpu:
            return Both(device, device)
        return Both(self.on("cpu", name, *arguments, out=out), device)

    def on(
        self, device: str, name: str, *arguments: object, out: str = "", check: bool = False
    ) -> Path:
        """Run a command on a device and return the new folder that it wrote into.

        Args:
            name: of the folder and of the check.
            out: file in that folder which `--out` names; none: the folder itself.
            check: report whether every module ran on the device.
        """
        folder = self.part.folder / name.replace(" ", "-") / ("checked" if check else "reference")
        folder.mkdir(parents=True)
        words = [*map(str, arguments), *self.model, "--device", device, "--out", str(folder / out)]
        if self.part.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with devices_of_modules() as devices:
            quietly(self.main, words)
        if check:
            self._check_device(name, devices)
        return folder

    def _check_device(self, name: str, devices: set[str]) -> None:
        detail = f"weights on {' and '.join(sorted(devices))}"
        right = devices == {self.part.device.type}
        if self.part.on_gpu:
            peak = torch.cuda.max_memory_allocated()
            detail, right = f"{detail}, peak of {peak / 2**20:.0f} MiB", right and peak > 0
        self.part.check(f"{name}: every module that ran was on the device", right, detail)


# -- flmm ------------------------------------------------------------------------------------------


def ground(runner: Runner, data: DrawnData) -> None:
    phrases = ["a frog", "two bears", "a rose at the top left"]
    arguments = ("ground", data.first_image, *phrases)
    found = runner.both("flmm ground", *arguments, out="grounded.png")
    masks = [masks_of(record) for record in found.json("grounded.json")]
    compare_masks(runner.part, "flmm ground", *masks)

    # What users get on a GPU, where the LMM is in bfloat16 unless they say otherwise.
    model = [*runner.model[:-1], "bfloat16"]
    rough = Runner(runner.part, runner.main, model)
    folder = rough.on(
        runner.part.device.type, "flmm ground in bf16", *arguments, out="grounded.png", check=True
    )
    differing = (masks_of(json.loads((folder / "grounded.json").read_text())) != masks[0]).mean()
    runner.part.figure(
        "flmm ground: pixels of masks in bf16 other than in float32", 100 * differing, "%"
    )


def chat(runner: Runner, data: DrawnData) -> None:
    question = "Please give me a description of the image."
    options = ("--question", question, "--max-new-tokens", 24)
    found = runner.both("flmm chat", "chat", data.first_image, *options)
    cpu, device = found.json("answer-1.json")
    runner.part.check(
        "flmm chat: the same answer", cpu["answer"] == device["answer"], device["answer"]
    )
    compare_masks(runner.part, "flmm chat", masks_of(cpu), masks_of(device))


def masks_of(record: dict) -> np.ndarray:
    """bool (N, H, W) of a file of `flmm ground` or `flmm chat`."""
    return np.stack(
        [decode_segmentation(found["segmentation"], *record["size"]) for found in record["phrases"]]
    )


def compare_masks(part: Part, name: str, cpu: np.ndarray, device: np.ndarray) -> None:
    apart = (cpu != device).mean(axis=(1, 2)).max().item()
    part.within(f"{name}: share of a mask's pixels that differ", apart, PIXELS_APART)


def eval_refcoco(runner: Runner, data: DrawnData) -> None:
    files = (
        "--images",
        data.images,
        "--refs",
        data.file("references"),
        "--instances-json",
        data.file("instances"),
    )
    compare_scores(runner, data, "flmm eval refcoco", "eval", "refcoco", *files, "--split", "val")


def eval_png(runner: Runner, data: DrawnData) -> None:
    annotations = (
        "--panoptic-json",
        data.file("panoptic"),
        "--panoptic-dir",
        data.folder / "panoptic",
    )
    files = ("--images", data.images, "--narratives-json", data.file("narratives"), *annotations)
    compare_scores(runner, data, "flmm eval png", "eval", "png", *files, "--batch-size", 2)


def compare_scores(runner: Runner, data: DrawnData, name: str, *arguments: object) -> None:
    """Counts of every sample, and the metrics of the report."""
    workers = 0 if runner.part.tiny else 2
    found = runner.both(
        name, *arguments, "--workers", workers, "--pictures", int(not runner.part.tiny)
    )
    cpu, device = (rows_of(folder) for folder in (found.cpu, found.device))
    runner.part.check(
        f"{name}: the same samples", cpu.keys() == device.keys(), f"{len(device)} samples"
    )
    apart = max(
        abs(a - b) / row["pixels"]
        for key, row in cpu.items()
        for what in ("intersections", "unions")
        for a, b in zip(row[what], device[key][what], strict=True)
    )
    runner.part.within(f"{name}: share of a mask's pixels in the counts", apart, PIXELS_APART)

    # An IoU follows its pixels; a share of masks above a threshold can change by one mask.
    tolerance = 2 * PIXELS_APART + 1 / data.regions
    compare_metrics(runner.part, name, found, tolerance)


def rows_of(folder: Path) -> dict[str, dict]:
    lines = (folder / "samples" / "scores-0000.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def compare_metrics(part: Part, name: str, found: Both, tolerance: float) -> None:
    cpu, device = (report["metrics"] for report in found.json("report.json"))
    part.check(f"{name}: the same metrics", cpu.keys() == device.keys(), f"{len(device)} of them")
    # A metric without any phrase of its kind is null in both.
    known = [key for key, value in cpu.items() if value is not None and value == value]
    apart = max(abs(cpu[key] - device[key]) for key in known)
    part.within(f"{name}: metrics of the report", apart, tolerance)


def eval_viscot(runner: Runner, data: DrawnData) -> None:
    files = ("--questions", data.file("questions"), "--images", data.images)
    found = runner.both("flmm eval viscot", "eval", "viscot", *files, "--limit", 4)
    cpu, device = (answers_of(folder) for folder in (found.cpu, found.device))
    same = sum(cpu[key]["answer"] == device[key]["answer"] for key in cpu)
    # A word can be nearly as likely as another, and a second look begins with a box that may move.
    right = cpu.keys() == device.keys() and same >= len(cpu) - 1
    runner.part.check(
        "flmm eval viscot: the same answers, all but one", right, f"{same} of {len(cpu)}"
    )


def answers_of(folder: Path) -> dict[str, dict]:
    lines = [
        line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    return {row["key"]: row for row in map(json.loads, lines)}


# -- clim-eval -------------------------------------------------------------------------------------


def regions(runner: Runner, data: DrawnData) -> None:
    size = 96 if runner.part.tiny else 384
    arguments = [
        "regions",
        "--images",
        data.images,
        "--image-px",
        size,
        "--templates",
        "photo",
        "--no-cache",
        "--crops",
    ]
    arguments += [
        "--outputs",
        "boxes",
        "boxes_value",
        "boxes_attention",
        "masks",
        "masks_attention",
    ]
    for kind in ("panoptic", "instances"):
        name = f"clim-eval regions of {kind}"
        found = runner.both(name, *arguments, f"--{kind}-json", data.file(kind))
        # One region whose two best classes are nearly as similar may change sides; its class has
        # that many regions.
        compare_metrics(runner.part, name, found, len(NAMES) / data.regions)


def show(runner: Runner, data: DrawnData) -> None:
    size = 96 if runner.part.tiny else 384
    arguments = (
        "show",
        data.first_image,
        "a red square",
        "a bar",
        "--image-px",
        size,
        "--draw",
        "mask",
    )
    found = runner.both("clim-eval show", *arguments, out="shown.png")
    cpu, device = (
        np.asarray(Image.open(f / "shown.png").convert("RGB")).astype(int)
        for f in (found.cpu, found.device)
    )
    runner.part.check(
        "clim-eval show: pictures of the same size", cpu.shape == device.shape, str(device.shape)
    )
    # Rounding moves a colour by a level or two, and rarely a cell of the best region.
    apart = (abs(cpu - device).max(axis=-1) > 8).mean().item()
    runner.part.within("clim-eval show: share of pixels of another colour", apart, PIXELS_APART)

"""Makes the demo LMM that ships with flmm: ``python -m flmm.experiments.pretrain``.

From random weights: first the vision tower alone tells which names a caption has, then all weights
learn to describe scenes by the next word's loss. No mask is given, and drawings of the held-out
vendor are not among the scenes.
"""

import argparse
import dataclasses
import math
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from clim_data import GroundingSample
from clim_data.command_line import CommandParser, add_option
from clim_data.readers import PanopticMasks
from tqdm import tqdm

from flmm.demo.lmm import build_demo_llava, word_tokenizer
from flmm.demo.model_files import COMMAND, WEIGHTS, save_weights
from flmm.demo.scenes import compose_demo_scenes
from flmm.experiments.captions import CaptionConfig, caption_accuracy, train_captions
from flmm.experiments.names import train_names
from flmm.experiments.painting import ScenePainter

# Chosen in a few short runs, by the accuracy on validation scenes.
NAMES = CaptionConfig(steps=1500, batch_size=32, lr=2e-3, warmup_steps=30, bf16=True)
CAPTIONS = CaptionConfig(steps=6000, batch_size=16, lr=2e-3, warmup_steps=50, bf16=True)


def pretrain(
    output: Path,
    names: CaptionConfig,
    captions: CaptionConfig,
    *,
    painter: ScenePainter,
    held_out: int = 150,
) -> dict[str, Any]:
    """Train from random weights, write them to `output`, and return the account that is stored with
    them.

    Measured on scenes of two or three kinds, of trained drawings ("val") and of the unseen vendor's
    ("test").
    """
    torch.manual_seed(names.seed)
    tokenizer = word_tokenizer()
    model = build_demo_llava(tokenizer)
    model.set_attn_implementation(
        "eager"
    )  # SDPA's backward pass in bfloat16 takes twice as long on CPUs
    begin = time.monotonic()
    name_recall = run_with_bar(
        "names",
        (share for _, share in train_names(model, painter, names)),
        names.steps,
        "names recalled",
    )
    loss = run_with_bar(
        "captions", train_captions(model, tokenizer, painter, captions), captions.steps, "loss"
    )
    about = {
        "command": COMMAND,
        "names": dataclasses.asdict(names),
        "captions": dataclasses.asdict(captions),
        "seconds": round(time.monotonic() - begin),
        "names_recalled": round(name_recall, 4),
        "loss": round(loss, 4),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    return finish(model.eval(), tokenizer, output, about, held_out=held_out)


def finish(
    model: Any, tokenizer: Any, output: Path, about: dict[str, Any], *, held_out: int
) -> dict[str, Any]:
    """Measure a trained demo LMM, write it to `output`, and return the whole account."""
    with tempfile.TemporaryDirectory() as folder:
        measured = {which: _scenes(Path(folder), which, held_out) for which in ("val", "test")}
    about = {
        **about,
        **{name: caption_accuracy(model, tokenizer, of) for name, of in measured.items()},
    }
    save_weights(model, output, about)
    return about


def _scenes(folder: Path, which: str, count: int) -> list[GroundingSample]:
    """Samples in memory: their files may go."""
    read = compose_demo_scenes(folder / which, which, count=count, seed=7).read()
    return [in_memory(read[i]) for i in range(len(read))]


def in_memory(sample: GroundingSample) -> GroundingSample:
    """Return the same sample with the bytes of its files instead of their paths."""
    masks = sample.mask_source
    assert isinstance(masks, PanopticMasks)  # as composed scenes have them
    masks = dataclasses.replace(masks, png=_bytes_of(masks.png))
    return dataclasses.replace(sample, image=_bytes_of(sample.image), mask_source=masks)


def _bytes_of(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def run_with_bar(title: str, values: Iterator[float], total: int, name: str) -> float:
    """Run a training with a bar; return the smoothed last value."""
    smoothed = math.nan
    with tqdm(values, total=total, desc=title) as bar:
        for value in bar:
            smoothed = value if math.isnan(smoothed) else 0.97 * smoothed + 0.03 * value
            bar.set_postfix({name: f"{smoothed:.3f}"}, refresh=False)
    return smoothed


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the pretraining."""
    parser = CommandParser(description=__doc__.splitlines()[0])
    add_option(parser, "--out", short="-o", old=["--output"], default=WEIGHTS)
    parser.add_argument("--length", type=float, default=1.0, help="all numbers of steps times this")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 arithmetic"
    )
    args = parser.parse_args(argv)

    def chosen(training: CaptionConfig) -> CaptionConfig:
        return dataclasses.replace(
            training, steps=round(args.length * training.steps), bf16=args.bf16
        )

    about = pretrain(args.out, chosen(NAMES), chosen(CAPTIONS), painter=ScenePainter())
    print(f"{about['seconds']} s; val {about['val']}; test {about['test']}; weights: {args.out}")


if __name__ == "__main__":
    main()

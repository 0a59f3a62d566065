"""Grounding from nothing: ``python -m flmm.experiments.quickstart``.

Shows the trained heads that ship with flmm, on scenes of a vendor whose drawings nothing was
trained on: masks, scores, and a picture. With ``--train`` it makes such heads:
it takes the demo LMM, which can describe composed scenes and never saw a mask, freezes it, trains
mask head and SAM refiner on its attention, and fits a presence head. Masks are measured before and
after. Ends with tables, `report.md`, `report.json` and figures.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data import PanopticNarratives
from clim_data.command_line import typed
from clim_data.pixels import FORMATS
from clim_eval import write_report
from clim_train.commands import exit_status
from clim_train.experiments import Stages, aligned_table, free_folder
from matplotlib.figure import Figure
from PIL import Image

from flmm.adapters.registry import load_lmm
from flmm.demo.model_files import write_demo_model
from flmm.demo.sam import build_demo_sam, write_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.dialogue.answers import ask
from flmm.experiments.captions import caption_accuracy
from flmm.experiments.first_look import check_unused, first_look
from flmm.experiments.grounders import GrounderFigures, compare_grounders, grounders_note
from flmm.experiments.heads import (
    HeadOptions,
    build_grounded,
    evaluate,
    evaluate_chance,
    predict,
    train_heads,
    true_masks,
)
from flmm.experiments.listed import ListedThings
from flmm.experiments.presence import (
    compare_scores,
    presence_note,
    presence_table,
    write_shipped_heads,
)
from flmm.experiments.scene_figure import GroundedScene, scenes_picture
from flmm.grounded import GroundedLMM
from flmm.grounders.chosen_heads import SCENES
from flmm.grounders.refining import box_refiner
from flmm.pictures.reliability import reliability_figure
from flmm.text.prompts import DESCRIBE
from flmm.training.task import HEADS_FILE

PROGRAM = "flmm.experiments.quickstart"
LONGEST_TEXT = 40
PICTURES = 6
TITLE = "flmm quick start"
# Rows of grounders without training.
UNTRAINED = {"attention": "attention alone", "box": "boxes of the LMM"}
COLUMNS = {
    "AR": "average recall",
    "AR_singulars": "singulars",
    "AR_plurals": "plurals",
    "acc@0.5": "IoU above 0.5",
    "pixel_accuracy": "pixels right",
}
NOTE = (
    "Average recall is the mean IoU over phrases. Whole image: every phrase gets all pixels. All "
    "things: every phrase "
    "gets the union of the scene's true masks. Wrong phrase: each gets the trained mask of the "
    "scene's next one. "
    "Own phrases: some of the scene's phrases, in any order and without the words between them. "
    "The SAM here is tiny and was pretrained on such scenes: what it adds says nothing about a "
    "real SAM. "
    "Drawings are not photographs: these figures say nothing about photographs."
)


def run(
    folder: Path,
    options: HeadOptions,
    *,
    train_scenes: int = 600,
    test_scenes: int = 150,
    split: str = "test",
    seed: int = 0,
    ship: Path | None = None,
) -> str:
    """Train and measure in `folder`, and return the printed tables.

    Args:
        ship: file for the heads in float16, as they ship with flmm.

    Raises:
        ValueError: `folder` already holds a run.
    """
    check_unused(folder)
    stages = Stages(6)
    stages.begin("demo LMM and scenes")
    lmm_folder, trained = write_demo_model(folder / "lmm")
    sam_folder, scenes = folder / "sam", folder / "scenes"
    write_demo_sam(sam_folder)
    train = compose_demo_scenes(scenes / "train", "train", count=train_scenes, seed=seed).read()
    test = compose_demo_scenes(scenes / split, split, count=test_scenes, seed=seed).read()
    model = build_grounded(load_lmm(lmm_folder, dtype="float32"), build_demo_sam(), seed=seed)
    descriptions = _right_descriptions(model, test)
    print(f"      {descriptions}", flush=True)

    stages.begin("before training")
    rows = evaluate_chance(test) | {"untrained heads": evaluate(model, test)["refined"]}
    before = predict_scenes(model, test, PICTURES)

    stages.begin(f"training the heads, {options.steps} steps of {options.batch_size} scenes")
    about = {"lmm": str(lmm_folder.resolve()), "sam": str(sam_folder.resolve())}
    train_heads(model, train, options, folder=folder / "run", about=about, seed=seed)

    stages.begin("fitting the presence head")
    presence = compare_scores(model, scenes, split=split, seed=seed)
    _save_presence(model, folder, ship)

    stages.begin("after training")
    rows |= _trained_rows(model, test, seed)
    grounders = _other_grounders(model, sam_folder, train, test)
    rows |= {UNTRAINED[kind]: grounders[kind].scores for kind in UNTRAINED}
    after = predict_scenes(model, test, PICTURES)
    pictures = {
        "grounded scenes": comparison_picture(model, test, before, after),
        "reliability": reliability_figure(presence["presence head"].bins),
    }

    stages.begin("report")
    table = f"{score_table(rows)}\n\n{presence_table(presence)}"
    config = {"options": dataclasses.asdict(options), "split": split, "seed": seed, "lmm": trained}
    config |= {"train_scenes": train_scenes, "test_scenes": test_scenes}
    metrics = {**rows, **{name: figures.scores for name, figures in presence.items()}}
    notes = [table, f"{descriptions}.", presence_note(presence), NOTE, grounders_note(grounders)]
    write_report(folder, title=TITLE, metrics=metrics, config=config, figures=pictures, notes=notes)
    return table


def _save_presence(model: GroundedLMM, folder: Path, ship: Path | None) -> None:
    """Write the heads again, with the presence head."""
    model.save_heads(folder / "run" / "model" / HEADS_FILE)
    if ship is not None:
        write_shipped_heads(model, ship)


def _trained_rows(
    model: GroundedLMM, test: PanopticNarratives, seed: int
) -> dict[str, dict[str, float]]:
    """Measure the masks of trained heads."""
    scores = evaluate(model, test)
    rows = {"mask head": scores["coarse"], "mask head + SAM": scores["refined"]}
    rows["wrong phrase"] = scores["shuffled"]
    rows["own phrases"] = evaluate(model, ListedThings(test, seed))["refined"]
    return rows


def _other_grounders(
    model: GroundedLMM, sam_folder: Path, train: PanopticNarratives, test: PanopticNarratives
) -> dict[str, GrounderFigures]:
    """Measure the trained heads, and next to them the two grounders that need no training."""
    choose_on = [train[number] for number in range(min(SCENES, len(train)))]
    scenes = [test[number] for number in range(len(test))]
    return compare_grounders(model, box_refiner(sam_folder), choose_on=choose_on, test=scenes)


def _right_descriptions(model: GroundedLMM, scenes: PanopticNarratives) -> str:
    """Count the LMM's right descriptions of the scenes, as a sentence."""
    samples = [scenes[i] for i in range(len(scenes))]
    right = caption_accuracy(model.lmm.model, model.lmm.tokenizer, samples)
    shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in right.items())
    return f"Right descriptions of the scenes by the LMM: {shares}"


def score_table(rows: dict[str, dict[str, float]]) -> str:
    """Write the scores as a Markdown table, in percent."""
    cells = [["", *COLUMNS.values()]]
    for name, scores in rows.items():
        cells.append([name])
        cells[-1] += [f"{100 * scores[column]:.1f}" for column in COLUMNS]
    return aligned_table(cells)


def predict_scenes(
    model: GroundedLMM, scenes: PanopticNarratives, count: int
) -> list[dict[str, np.ndarray]]:
    """Return the results of `predict` in the first scenes, as arrays."""
    found = []
    for number in range(min(count, len(scenes))):
        predicted = predict(model, scenes[number])
        found.append({name: logits.numpy() for name, logits in predicted.items()})
    return found


def comparison_picture(
    model: GroundedLMM,
    scenes: PanopticNarratives,
    before: Sequence[dict[str, np.ndarray]],
    after: Sequence[dict[str, np.ndarray]],
) -> Figure:
    """Draw a picture of the first scenes, before and after training; see
    `flmm.experiments.scene_figure`."""
    rows = []
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        sample = scenes[number]
        image = sample.load_image()
        rows.append(
            GroundedScene(
                image=image,
                phrases=tuple(phrase.text for phrase in sample.phrases),
                said=ask(model.lmm, image, DESCRIBE, max_new_tokens=LONGEST_TEXT).text,
                attention=last["attention"],
                truth=true_masks(sample).numpy(),
                before=first["refined"],
                after=last["refined"],
            )
        )
    return scenes_picture(rows)


def build_parser() -> argparse.ArgumentParser:
    """Make the command line of the quick start. Options that only a training reads are None unless
    they are given."""
    defaults = HeadOptions()
    parser = argparse.ArgumentParser(
        description="Show the trained heads that ship with flmm on scenes that nothing was trained "
        "on; with --train, train such heads."
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of report and models (default: flmm-quickstart, or flmm-quickstart-2, ...)",
    )
    parser.add_argument("--train", action="store_true", help="train the heads: some CPU minutes")
    group = parser.add_argument_group("with --train")
    group.add_argument("--ship", type=Path, metavar="FILE", help="also write the heads in float16")
    group.add_argument("--train-scenes", type=int, help="default: 600")
    group.add_argument("--test-scenes", type=int, help="default: 150")
    group.add_argument("--split", choices=("test", "val"), help="val: for choices; default: test")
    group.add_argument("--seed", type=int, help="default: 0")
    group.add_argument("--docs", type=Path, help="also copy the figures to this folder")
    for field in dataclasses.fields(HeadOptions):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            help=f"default: {getattr(defaults, field.name)}",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the quick start."""
    parser = build_parser()
    args = parser.parse_args(argv)
    given = {name: value for name, value in vars(args).items() if value is not None}
    train, out = given.pop("train"), given.pop("out", None)
    begin = time.monotonic()
    if train:
        out = out or free_folder(Path("flmm-quickstart"))
        print(f"\n{_train(out, given)}\n\n{NOTE}\n")
    elif given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        parser.error(f"{flags}: only with --train")
    else:
        out = out or free_folder(Path("flmm-quickstart"))
        print(f"\n{first_look(out)}\n")
    print(f"{time.monotonic() - begin:.0f} s. Report: {(out / 'report.md').resolve()}")
    images = out / "scenes" / given.get("split", "test") / "images"
    print("\n".join(_next_commands(out, images, trained=train)))


def _next_commands(out: Path, images: Path, *, trained: bool) -> list[str]:
    """Return the commands that come next, in the form that works in this shell."""
    flmm = typed("flmm")
    lines = [
        "next:",
        f'  {flmm} ground {min(images.iterdir())} "a penguin" "a frog" --checkpoint {out}/run',
        f"  {flmm} demo --examples {images} --checkpoint {out}/run",
    ]
    if not trained:
        in_hatch = "HATCH_ENV_ACTIVE" in os.environ
        again = "hatch run flmm-quickstart" if in_hatch else f"python -m {PROGRAM}"
        lines.append(f"  {again} --train")
    return lines


def _train(out: Path, given: dict[str, Any]) -> str:
    """Train and measure heads with the options that are given; return the tables."""
    ship, docs = given.pop("ship", None), given.pop("docs", None)
    chosen = [field.name for field in dataclasses.fields(HeadOptions) if field.name in given]
    options = HeadOptions(**{name: given.pop(name) for name in chosen})
    torch.manual_seed(given.get("seed", 0))
    table = run(out, options, ship=ship, **given)
    if docs is not None:
        docs.mkdir(parents=True, exist_ok=True)
        for figure in sorted((out / "figures").glob("*.png")):
            # 256 colours: a repository keeps every version of its pictures.
            with Image.open(figure, formats=FORMATS) as picture:
                picture.convert("RGB").quantize(256).save(
                    docs / f"flmm_{figure.name}", optimize=True
                )
    return table


if __name__ == "__main__":
    sys.exit(exit_status(main, program=PROGRAM, continues="run it again with another --out"))

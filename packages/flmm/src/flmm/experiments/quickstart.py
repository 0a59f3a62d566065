"""Grounding from nothing in minutes: ``python -m flmm.experiments.quickstart``.

Takes the demo LMM, which can describe composed scenes and never saw a mask, freezes it, and trains
mask head and SAM refiner on its attention. Measures the masks on scenes of a vendor whose drawings
nothing was trained on, before and after, and draws some. Ends with a table, `report.md`,
`report.json` and figures.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from clim_data import PanopticNarratives
from clim_data.pixels import FORMATS
from clim_eval import write_report
from clim_train.experiments import Stages, aligned_table, free_folder
from matplotlib.figure import Figure
from PIL import Image

from flmm.adapters.registry import load_lmm
from flmm.demo.model_files import write_demo_model
from flmm.demo.sam import build_demo_sam
from flmm.demo.scenes import compose_demo_scenes
from flmm.dialogue.answers import ask
from flmm.experiments.captions import caption_accuracy
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
from flmm.experiments.scene_figure import GroundedScene, scenes_picture
from flmm.grounded import GroundedLMM
from flmm.text.prompts import DESCRIBE

LONGEST_TEXT = 40
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
    pictures: int = 6,
    seed: int = 0,
) -> str:
    """Run everything in `folder` and return the printed table.

    Raises:
        ValueError: `folder` already holds a run.
    """
    if (folder / "run").exists():
        raise ValueError(
            f"{folder} already holds a quick start; delete it, or choose another folder with --out"
        )
    stages = Stages(5)
    stages.begin("demo LMM and scenes")
    lmm_folder, trained = write_demo_model(folder / "lmm")
    sam_folder = folder / "sam"
    build_demo_sam().save_pretrained(sam_folder)
    scenes = folder / "scenes"
    train = compose_demo_scenes(scenes / "train", "train", count=train_scenes, seed=seed).read()
    test = compose_demo_scenes(scenes / split, split, count=test_scenes, seed=seed).read()
    model = build_grounded(load_lmm(lmm_folder, dtype="float32"), build_demo_sam(), seed=seed)
    descriptions = _right_descriptions(model, test)
    print(f"      {descriptions}", flush=True)

    stages.begin("before training")
    rows = evaluate_chance(test)
    rows["untrained heads"] = evaluate(model, test)["refined"]
    before = drawn(model, test, pictures)

    stages.begin(f"training the heads, {options.steps} steps of {options.batch_size} scenes")
    about = {"lmm": str(lmm_folder.resolve()), "sam": str(sam_folder.resolve())}
    train_heads(model, train, options, folder=folder / "run", about=about, seed=seed)

    stages.begin("after training")
    scores = evaluate(model, test)
    rows["mask head"], rows["mask head + SAM"] = scores["coarse"], scores["refined"]
    rows["wrong phrase"] = scores["shuffled"]
    rows["own phrases"] = evaluate(model, ListedThings(test, seed))["refined"]
    after = drawn(model, test, pictures)

    stages.begin("figures and report")
    table = score_table(rows)
    config = {"options": dataclasses.asdict(options), "split": split, "seed": seed}
    config |= {"train_scenes": train_scenes, "test_scenes": test_scenes, "lmm": trained}
    write_report(
        folder,
        title="flmm quick start",
        metrics=rows,
        config=config,
        figures={"grounded scenes": compared(model, test, before, after)},
        notes=[table, f"{descriptions}.", NOTE],
    )
    return table


def _right_descriptions(model: GroundedLMM, scenes: PanopticNarratives) -> str:
    """Say how many of the LMM's descriptions of the scenes are right."""
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


def drawn(
    model: GroundedLMM, scenes: PanopticNarratives, count: int
) -> list[dict[str, np.ndarray]]:
    """Return what `predict` finds in the first scenes, as arrays."""
    found = []
    for number in range(min(count, len(scenes))):
        predicted = predict(model, scenes[number])
        found.append({name: logits.numpy() for name, logits in predicted.items()})
    return found


def compared(
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of the quick start."""
    defaults = HeadOptions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of report and models (default: flmm-quickstart, or flmm-quickstart-2, ...)",
    )
    parser.add_argument("--train-scenes", type=int, default=600)
    parser.add_argument("--test-scenes", type=int, default=150)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="val: for choices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", type=Path, help="also copy the figures to this folder")
    for field in dataclasses.fields(HeadOptions):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            default=getattr(defaults, field.name),
        )
    args = parser.parse_args(argv)
    options = HeadOptions(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(HeadOptions)}
    )
    begin = time.monotonic()
    out = args.out or free_folder(Path("flmm-quickstart"))
    torch.manual_seed(args.seed)
    table = run(
        out,
        options,
        train_scenes=args.train_scenes,
        test_scenes=args.test_scenes,
        split=args.split,
        seed=args.seed,
    )
    print(f"\n{table}\n\n{NOTE}\n")
    if args.docs:
        args.docs.mkdir(parents=True, exist_ok=True)
        for figure in sorted((out / "figures").glob("*.png")):
            # 256 colours: a repository keeps every version of its pictures.
            with Image.open(figure, formats=FORMATS) as picture:
                picture.convert("RGB").quantize(256).save(
                    args.docs / f"flmm_{figure.name}", optimize=True
                )
    print(f"{time.monotonic() - begin:.0f} s. Report: {(out / 'report.md').resolve()}")
    print(f'Next: flmm ground IMAGE "a frog" --checkpoint {out}/run')


if __name__ == "__main__":
    main()

"""The first minute of the quick start: the trained heads that ship with flmm, on scenes of a vendor
that nothing was trained on."""

from pathlib import Path

import numpy as np
from clim_eval import write_report
from clim_train.experiments import Stages, aligned_table
from matplotlib.figure import Figure

from flmm.demo.example import HEADS_FILE, Example, write_example
from flmm.experiments.heads import evaluate, true_masks
from flmm.experiments.presence import measure_presence, presence_table
from flmm.experiments.probed_scenes import absent_probes
from flmm.grounded import GroundedLMM, load_grounded
from flmm.grounders.heads import HeadsGrounder
from flmm.grounders.images import labels_of_phrases
from flmm.pictures.masks import scenes_figure

SCENES = 40
PICTURES = 3


def first_look(folder: Path, *, scenes: int = SCENES) -> str:
    """Write the shipped models into `folder`, measure them, and draw some scenes.

    Returns:
        The printed tables.

    Raises:
        ValueError: `folder` already holds a run.
    """
    check_unused(folder)
    stages = Stages(3)
    stages.begin("models and scenes")
    example = write_example(folder, scenes=scenes)
    heads = example.checkpoint / "model" / HEADS_FILE
    model = load_grounded(folder / "lmm", sam=folder / "sam", heads=heads, dtype="float32")
    test = example.scenes.read()

    stages.begin("pictures")
    figures = {"grounded scenes": grounded_picture(model, example)}

    stages.begin(f"measuring {len(test)} scenes of drawings that nothing was trained on")
    masks = evaluate(model, test)
    presence = measure_presence(model, test)
    cells = [["", "average recall", "IoU above 0.5"]]
    for name, kind in (("mask head", "coarse"), ("mask head + SAM", "refined")):
        cells.append([name, *(f"{100 * masks[kind][key]:.1f}" for key in ("AR", "acc@0.5"))])
    tables = f"{aligned_table(cells)}\n\n{presence_table({'presence head': presence})}"
    write_report(
        folder,
        title="flmm quick start: shipped heads",
        metrics={**masks, "presence": presence.scores},
        config={"scenes": scenes, "heads": "shipped"},
        figures=figures,
        notes=[tables],
    )
    return tables


def check_unused(folder: Path) -> None:
    """Raise ValueError where a folder already holds a quick start."""
    if (folder / "run").exists():
        raise ValueError(
            f"{folder} already holds a quick start; delete it, or choose another folder with --out"
        )


def grounded_picture(model: GroundedLMM, example: Example) -> Figure:
    """Draw the first scenes: true masks, and those found, with scores. Each scene is also asked for
    a thing that it lacks."""
    data = example.scenes.read()
    images, masks, phrases = [], [], []
    for number in range(min(PICTURES, len(data))):
        sample = data[number]
        truth = true_masks(sample).numpy()
        absent = absent_probes(sample, np.random.default_rng(number))[0].text
        texts = [*(phrase.text for phrase in sample.phrases), absent]
        image = sample.load_image()
        found = HeadsGrounder(model)(image, texts)
        images.append(image)
        nothing = np.zeros((1, *truth.shape[1:]), dtype=bool)
        masks.append(
            {
                "true masks": np.concatenate([truth, nothing]),
                "found, with scores": found.binary(found.absent_below).cpu().numpy(),
            }
        )
        phrases.append(labels_of_phrases(texts, found.scores.tolist()))
    return scenes_figure(images, masks, phrases)

"""A run folder that later code must continue: CLIM on a tiny tower, stopped after 3 of 5 steps.

Weights are made of whole numbers: the frozen ones have the same checksum on every machine, and need
not be stored. Paths in the stored `config.json` begin with a placeholder, which `place` replaces.
"""

import json
import shutil
from functools import cache
from pathlib import Path

import open_clip
import torch
from clim_models import create_model
from clim_train import read_metrics
from house import access, batches
from house.machine import RECORDS
from safetensors.torch import save_file

TOWER = "house-vit"
RECORDED = RECORDS / "run"
PLACEHOLDER = "FOLDER"
STOPPED_AT, STEPS = 3, 5
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 4, "heads": 1, "layers": 1},
}
OPTIONS = [
    "--model.unlocked-blocks=1",
    "--data.batch-size=6",
    "--data.workers=0",
    "--data.mosaic.canvas-px=32",
    "--data.mosaic.single-px=16",
    "--data.mosaic.min-singles=2",
    f"--schedule.steps={STEPS}",
    "--schedule.warmup-steps=1",
    "--optim.lr=1e-3",
    "--engine.device=cpu",
    "--engine.precision=fp32",
    f"--run.save-every={STOPPED_AT}",
    "--run.log-every=1",
    "--run.no-bar",
    "--run.no-tensorboard",
]


@cache
def register_tower(folder: Path) -> None:
    """Let open_clip find the tower by its name."""
    (folder / f"{TOWER}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{TOWER}.json")


def write_weights(path: Path) -> Path:
    """Write weights of the tower: multiples of 1/64, the same on every machine."""
    state = create_model(TOWER).clip.state_dict()
    made = {}
    for number, (name, value) in enumerate(sorted(state.items())):
        if not value.is_floating_point() or name == "logit_scale":
            made[name] = torch.full_like(value, 2)
            continue
        places = torch.arange(value.numel(), dtype=torch.int64)
        steps = (places * (7919 + 2 * number) + 31 * number) % 61 - 30
        # Gains of the norms lie around one.
        is_gain = "ln_" in name and name.endswith("weight")
        made[name] = (steps / 64 + is_gain).reshape(value.shape).to(value.dtype)
    save_file(made, path)
    return path


def prepare(folder: Path) -> Path:
    """Write what the run reads: tower, weights and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    register_tower(folder)
    write_weights(folder / "weights.safetensors")
    batches.write_data(folder / "data")
    return folder


def record(folder: Path) -> dict[str, list[str]]:
    """Train the run to its end, and store it as it was after `STOPPED_AT` steps.

    Returns the losses of all steps.
    """
    prepare(folder)
    names = [f"--model.name={TOWER}", f"--model.pretrained={folder / 'weights.safetensors'}"]
    places = [f"--data.images={folder / 'data' / 'images'}", f"--run.folder={folder / 'run'}"]
    status = access.programs()["clim-train"](["clim_coco_vitb16", *names, *places, *OPTIONS])
    assert status == 0

    losses = losses_of(folder / "run")
    store(folder, RECORDED)
    return {"losses": losses}


def store(folder: Path, target: Path) -> None:
    """Copy `folder/run` without what came after the stop, and with placeholders for paths."""
    run = folder / "run"
    shutil.rmtree(target, ignore_errors=True)
    later = shutil.ignore_patterns(
        "model", "trained.safetensors", f"step-{STEPS:08d}*", "skipped.json"
    )
    shutil.copytree(run, target, ignore=later)

    (target / "checkpoints" / "latest").write_text(f"step-{STOPPED_AT:08d}\n")
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in metrics if json.loads(line)["step"] <= STOPPED_AT]
    (target / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    config = (target / "config.json").read_text()
    (target / "config.json").write_text(config.replace(str(folder), PLACEHOLDER))


def place(folder: Path) -> Path:
    """Put the stored run and what it reads into `folder`; returns the run folder."""
    prepare(folder)
    run = Path(shutil.copytree(RECORDED, folder / "run"))
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace(PLACEHOLDER, str(folder)))
    return run


def losses_of(run: Path) -> list[str]:
    """Return the losses of a run's steps, as hexadecimal floats."""
    return [line["loss"].hex() for line in read_metrics(run) if "loss" in line]

"""Detectors train through the command line on photographs, where there are any (see `photos`)."""

import json
import os
from pathlib import Path

import pytest
from clim_train.commands.main import main
from clim_train.run.metrics import read_metrics
from detector_training import few_boxes
from tiny_training import EVA, register_tiny_towers


@pytest.fixture
def photos(tmp_path):
    """Freely licensed COCO photos with instances, and a file of the classes that have boxes."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("CLIM_DATA", beside))
    boxes = root / "coco_cc_instances" / "annotations" / "instances_train2017.json"
    images = root / "coco_cc" / "train2017"
    if not (boxes.is_file() and images.is_dir()):
        pytest.skip(f"no photos at {images} with {boxes}: set CLIM_DATA to the folder of both")

    record = json.loads(boxes.read_text())
    names = {category["id"]: category["name"] for category in record["categories"]}
    large = [a for a in record["annotations"] if not a["iscrowd"] and min(a["bbox"][2:]) >= 1]
    base = sorted({names[annotation["category_id"]] for annotation in large})
    (tmp_path / "base.txt").write_text("\n".join(base) + "\n")
    return images, boxes, tmp_path / "base.txt"


# The second reads masks, given as run lengths.
@pytest.mark.parametrize("recipe", ["fvlm_coco_vitb16", "fvit_lvis_evab16"])
def test_a_recipe_trains_on_photographs(recipe, photos, tmp_path, monkeypatch):
    few_boxes(monkeypatch.setattr)
    register_tiny_towers()
    images, boxes, classes = photos
    data = [f"--data.images={images}", f"--data.boxes={boxes}", f"--data.classes={classes}"]
    small = ["--data.image-px=64", "--data.batch-size=2", "--data.workers=0", "--schedule.steps=2"]
    tower = [f"--model.name={EVA}", "--model.pretrained=None", "--task.templates=name"]
    blocks = ["--task.blocks", "0", "0", "1", "1"]
    run = [f"--run.folder={tmp_path / 'run'}", "--run.log-every=1", "--engine.device=cpu"]
    # COCO has no frequencies.
    frequencies = ["--data.frequencies"] if "lvis" in recipe else []

    assert main([recipe, *data, *frequencies, *small, *tower, *blocks, *run, "--run.no-bar"]) == 0
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 20 for line in lines)
    assert ("loss_mask" in lines[0]) == ("lvis" in recipe)

    skipped = json.loads((tmp_path / "run" / "skipped.json").read_text())
    assert set(skipped["counts"]) <= {"no usable box", "small image"}
    exported = json.loads((tmp_path / "run" / "model" / "classes.json").read_text())
    assert exported["base"] == [
        n for n in exported["names"] if n in classes.read_text().split("\n")
    ]

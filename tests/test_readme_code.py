"""The Python code of every page runs as it is printed, block after block.

A folder has the files that the pages name; small models stand in the places of large ones. Pages
whose code another test runs are named with it.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import clim_eval
import clim_models
import pytest
import torch
from clim_data.commands.main import main as clim_data_main
from clim_data.drawings import compose_scenes, load_emoji
from clim_train.methods import METHODS
from PIL import Image
from tiny_training import NoiseLoader, tiny_config, tiny_model

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "golden" / "flmm" / "data"
PAGES = ["README.md", *(f"packages/{n}/README.md" for n in ("clim-data", "clim-models"))]
PAGES += ["packages/clim-eval/README.md", "packages/clim-train/README.md"]
PAGES += ["docs/quickstart.md", "docs/readouts.md"]
# Whose code is run where.
ELSEWHERE = {
    "packages/flmm/README.md": "tests/flmm/test_readme.py",
    "docs/extending.md": "tests/test_extending.py",
    "docs/flmm_quickstart.md": "tests/flmm/commands/test_presence.py",
}
# So that a page takes seconds: fewer scenes and drawings, smaller canvases.
SMALLER = {
    r"count=\d+": "count=2",
    r"image_px=1024, stride=16": "image_px=64, stride=8",
    r"image_px=1024": "image_px=64",
    r"crop_px=224": "crop_px=16",
    r"canvas_px=1024": "canvas_px=128",
    r"single_px=224": "single_px=32",
    r'(FVIT_PRESETS\["[\w-]+"\])': r"small(\1)",
    r'split="testA"': 'split="val"',
}


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def write_folder(folder: Path) -> None:
    """Photographs with captions and boxes, and what a folder DATA of COCO would have."""
    split = load_emoji().split()
    scenes = compose_scenes(
        folder / "made", vendor=split.test_vendor, concepts=split.test_concepts, count=6
    )
    (folder / "photos").mkdir()
    for number, path in enumerate(sorted(scenes.images.iterdir())):
        shutil.copy(path, folder / "photos" / path.name)
        (folder / "photos" / f"{path.stem}.txt").write_text(f"scene {number}\n")
    Image.open(path).convert("RGB").resize((300, 200)).save(folder / "photo.jpg")
    for name in ("instances.json", "proposals.json", "boxes.json"):
        shutil.copy(scenes.instances_json, folder / name)
    packed = ["pack", "folder", "--images", folder / "photos", "--out", folder / "shards"]
    assert clim_data_main([str(word) for word in packed]) == 0
    (folder / "classes.json").write_text(json.dumps({"cat": {}, "sofa": {}}))
    shutil.copytree(DATA / "refcoco", folder / "refcoco")
    (folder / "coco" / "annotations").mkdir(parents=True)
    for year in ("val2017", "train2014", "train2017"):
        shutil.copytree(DATA / "images", folder / "coco" / year)
    annotations = folder / "coco" / "annotations"
    shutil.copy(DATA / "panoptic.json", annotations / "panoptic_val2017.json")
    shutil.copytree(DATA / "panoptic", annotations / "panoptic_val2017")
    shutil.copy(DATA / "png.json", annotations / "png_coco_val2017.json")
    # The page of clim-eval has COCO in the current folder.
    for name in ("val2017", "annotations/panoptic_val2017", "annotations/panoptic_val2017.json"):
        (folder / Path(name).name).symlink_to(folder / "coco" / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pages")
    write_folder(made)
    return made


@pytest.fixture
def desk(folder, tmp_path, monkeypatch):
    """The current folder, and small models under the names of large ones."""
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clim_models, "create_model", lambda *_, **__: tiny_model().eval())
    return tmp_path


def names_of(page: str, folder: Path, monkeypatch) -> dict:
    """What the blocks of a page take for granted: models and loaders that the reader has."""
    if page == "README.md":
        small = "clim_models.pipelines.tasks.create_model"
        monkeypatch.setattr(small, lambda *_, **__: tiny_model().eval())
    if page == "packages/clim-models/README.md":
        # The hub is not asked; its own tests have a client in its place.
        monkeypatch.setattr(clim_models, "push_to_hub", lambda *_, **__: "address")
        monkeypatch.setattr(clim_models, "from_pretrained", lambda *_: tiny_model().eval())
        return {"tuned": tiny_model(), "original": tiny_model(), "small": small_preset}
    if page == "packages/clim-train/README.md":
        # The page enters a method, which is taken out again after the test.
        monkeypatch.setitem(METHODS, "whole_images", None)
        return {
            "config": tiny_config(folder / "run", steps=2),
            "model": torch.nn.Linear(4, 4),
            "loader": SquareLoader(),
            "measure": lambda: {"found": 1.0},
        }
    if page == "packages/clim-eval/README.md":
        start = {name: value.clone() for name, value in tiny_model().state_dict().items()}
        pair = clim_eval.WeightPair(start, start)
        monkeypatch.setattr(clim_eval, "weights_of_run", lambda run: pair)
        return {"evaluator": SquareEvaluator()}
    return {}


def small_preset(preset):
    """A detector for the tower of three blocks."""
    return dataclasses.replace(preset, image_size=64, channels=16, blocks=(0, 0, 2, 2))


class SquareLoader(NoiseLoader):
    def __iter__(self):
        return iter([torch.eye(4)] * self.length)


class SquareEvaluator:
    def run(self, data):
        return {"boxes.thing.mAcc1": 0.5}


def test_every_page_with_code_is_run():
    pages = [ROOT / "README.md", *ROOT.glob("packages/*/README.md"), *ROOT.glob("docs/*.md")]
    with_code = {str(page.relative_to(ROOT)) for page in pages if "```python" in page.read_text()}
    assert with_code <= {*PAGES, *ELSEWHERE}
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page, desk, monkeypatch):
    scope = {"__name__": "__main__", **names_of(page, desk, monkeypatch)}
    for block in blocks_of(page):
        for pattern, small in SMALLER.items():
            block = re.sub(pattern, small, block)
        exec(compile(block, page, "exec"), scope)

"""`clim-eval detect` on a tiny detector with random weights."""

import json

import numpy as np
import pytest
from clim_data.pixels import decode_segmentation
from clim_eval.commands.main import main
from clim_eval.evaluators.picture_files import split_arguments
from clim_models import TINY, create_model
from clim_models.detection import embed_class_set, save_detector
from PIL import Image
from tiny_detic import tiny_c4, tiny_cascade


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    Image.effect_noise((60, 40), 90).convert("RGB").save(folder / "a.png")
    Image.effect_noise((30, 50), 90).convert("RGB").save(folder / "inner" / "a.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "moving.gif").write_bytes(b"GIF89a")
    (folder / "old.tar").write_bytes(bytes(1024))
    return folder


def command(detector_run, out, *words):
    # The test model is none that open_clip ships.
    fixed = ["--checkpoint", str(detector_run), "--device", "cpu", "--trust", "--min-score", "0"]
    return main(["detect", *map(str, words), *fixed, "--out", str(out)])


def test_a_folder_gets_pictures_and_a_coco_json(detector_run, photos, tmp_path, capsys):
    out = photos / "found"

    assert command(detector_run, out, photos, "cat", "red car", "--templates", "name") == 0

    contents = json.loads((out / "detections.json").read_text())
    assert [c["name"] for c in contents["categories"]] == ["cat", "red car"]
    sizes = {i["file_name"]: (i["width"], i["height"]) for i in contents["images"]}
    assert sizes == {"a.png": (60, 40), "inner/a.jpg": (30, 50)}
    ids = {image["id"]: image for image in contents["images"]}
    assert len(contents["annotations"]) == 8
    for one in contents["annotations"]:
        image = ids[one["image_id"]]
        left, top, width, height = one["bbox"]
        assert min(left, top) >= 0
        assert left + width <= image["width"] + 0.01
        assert top + height <= image["height"] + 0.01
        assert one["category_id"] in (1, 2)
        size = (image["height"], image["width"])
        assert decode_segmentation(one["segmentation"], *size).shape == size
    for name in sizes:
        drawn = np.asarray(Image.open(out / f"{name}.detections.png"))
        assert max(drawn.shape) > 25 * 8
    shown = capsys.readouterr().out
    assert "scored 2 of 5 images, left out 3" in shown
    for name in ("broken.jpg", "photos/moving.gif", "photos/old.tar"):
        assert name in shown

    # Pictures of the first run lie in the folder of the second one.
    assert command(detector_run, out, photos, "cat", "--templates", "name") == 0
    assert "picture of an earlier run 2" in capsys.readouterr().out


def test_a_vocabulary_file_and_the_trained_classes(detector_run, photos, tmp_path):
    names = tmp_path / "vocabulary.json"
    names.write_text(json.dumps({"beast": {"phrases": [], "examples": ["photos/a.png"]}}))

    assert command(detector_run, tmp_path / "x", photos / "a.png", "--vocabulary", names) == 0
    assert command(detector_run, tmp_path / "y", photos / "a.png") == 0

    found = {}
    for folder in ("x", "y"):
        contents = json.loads((tmp_path / folder / "detections.json").read_text())
        found[folder] = [category["name"] for category in contents["categories"]]
    assert found == {"x": ["beast"], "y": ["cat", "dog"]}


def test_words_are_images_first_and_names_after_them(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert split_arguments(["a.png", "inner", "cat", "a b"])[1] == ["cat", "a b"]
    with pytest.raises(FileNotFoundError, match=r"no image b\.png"):
        split_arguments(["a.png", "b.png", "cat"])
    with pytest.raises(ValueError, match=r"a\.png comes after 'cat'"):
        split_arguments(["broken.jpg", "cat", "a.png"])
    with pytest.raises(FileNotFoundError, match="cat is no file or folder"):
        split_arguments(["cat"])
    with pytest.raises(ValueError, match="a word is empty"):
        split_arguments(["a.png", ""])


def test_mistakes_end_with_status_2(detector_run, photos, tmp_path, capsys):
    assert command(tmp_path / "no", tmp_path / "out", photos / "a.png") == 2
    assert "holds no detector.json" in capsys.readouterr().err
    assert command(detector_run, tmp_path / "out", photos / "broken.jpg", "cat") == 2
    assert "nothing was scored" in capsys.readouterr().err
    assert command(detector_run, tmp_path / "out", photos / "a.png", photos / "a.png") == 2
    assert "two images are called a.png" in capsys.readouterr().err


@pytest.mark.parametrize("build", [tiny_c4, tiny_cascade])
def test_detectors_of_detic_find_their_classes_and_other_names(build, photos, tmp_path):
    model = create_model(TINY, pretrained=None)
    detector = build(embed_class_set(model, ["cat", "dog"], base=["cat"], templates=["{}"]))
    detector.attach_text(model)
    save_detector(detector, tmp_path / "run" / "model")
    run, picture = tmp_path / "run", photos / "a.png"

    assert command(run, tmp_path / "own", picture) == 0
    assert command(run, tmp_path / "others", picture, "red car", "--templates", "name") == 0

    for folder, names in (("own", ["cat", "dog"]), ("others", ["red car"])):
        contents = json.loads((tmp_path / folder / "detections.json").read_text())
        assert [one["name"] for one in contents["categories"]] == names
        assert contents["annotations"]

"""`clim-eval label`: a folder and names in, one COCO json out."""

import json

import pytest
import torch
from clim_data.processes import PartJob, do_parts
from clim_eval.commands.main import main
from clim_eval.evaluators import box_features
from clim_eval.labelling.boxes import BoxNamer, BoxView
from clim_eval.labelling.nouns import NounFinder
from PIL import Image

BOXES = [(2, 3, 20, 16), (10, 10, 25, 20)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    names = ["a.png", "b.png", "inner/c.png"]
    for name in names:
        Image.effect_noise((48, 40), 90).convert("RGB").save(folder / name)
    images = [
        {"id": number, "file_name": name, "width": 48, "height": 40}
        for number, name in enumerate(names, 1)
    ]
    annotations = [
        {"id": 2 * image["id"] + row, "image_id": image["id"], "bbox": box, "category_id": 1}
        for image in images
        for row, box in enumerate(BOXES)
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return folder


def command(model_options, photos, out, *words):
    boxes = photos.parent / "boxes.json"
    fixed = ["--boxes", boxes, "--out", out, "--templates", "name", "--part-images", "1"]
    return ["label", str(photos), *map(str, words), *map(str, fixed), *model_options]


def test_a_folder_becomes_one_json_and_pictures(model_options, photos, tmp_path):
    out, pictures = tmp_path / "labels.json", tmp_path / "drawn"
    line = command(model_options, photos, out, "cat", "red car", "--pictures", pictures)
    assert main(line) == 0

    found = json.loads(out.read_text())
    assert [one["name"] for one in found["categories"]] == ["cat", "red car"]
    assert [one["file_name"] for one in found["images"]] == ["a.png", "b.png", "inner/c.png"]
    assert len(found["annotations"]) == 6
    assert {tuple(one["bbox"]) for one in found["annotations"]} == set(BOXES)
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3, 4, 5, 6]
    drawn = Image.open(pictures / "inner" / "c.png.labels.jpg")
    assert drawn.size[0] / 48 == drawn.size[1] / 40  # enlarged, and in the image's shape


def test_a_killed_run_goes_on_and_nothing_is_done_twice(
    model_options, photos, tmp_path, monkeypatch
):
    whole, out = tmp_path / "whole.json", tmp_path / "labels.json"
    assert main(command(model_options, photos, whole, "cat", "dog")) == 0
    encode, calls = box_features.BoxEncoder._encode, []

    def stops(self, views):
        calls.append(len(views))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, views)

    monkeypatch.setattr(box_features.BoxEncoder, "_encode", stops)
    assert main(command(model_options, photos, out, "cat", "dog")) == 130
    assert not out.exists()
    assert main(command(model_options, photos, out, "cat", "dog")) == 0
    assert len(calls) == 4
    assert out.read_bytes() == whole.read_bytes()


def test_a_vocabulary_has_phrases_examples_and_what_never_wins(model_options, photos, tmp_path):
    words = {
        "cat": {"phrases": {"cat": 2, "kitten": 1}, "not": ["lynx"]},
        "mug": {"phrases": [], "examples": ["photos/a.png"]},
    }
    (tmp_path / "words.json").write_text(json.dumps(words))
    out = tmp_path / "labels.json"
    line = command(model_options, photos, out, "--vocabulary", tmp_path / "words.json")
    assert main(line) == 0

    found = json.loads(out.read_text())
    assert [one["name"] for one in found["categories"]] == ["cat", "mug"]
    assert found["counts"]["boxes"] + found["counts"]["boxes_rejected"] == 6


def test_boxes_closest_to_what_never_wins_get_no_name():
    class Model:
        device = "cpu"
        logit_scale = torch.tensor(2.0)

    rows = torch.eye(3)
    namer = BoxNamer(Model(), rows[:2], NounFinder(["cat", "dog"]), rejects=rows[2:])
    features = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.3, 0.8], [0.0, 0.7, 0.6]])
    namer.encoder.encode = lambda views: torch.nn.functional.normalize(features, dim=-1)
    view = BoxView(boxes=torch.zeros(3, 4), image=None, crops=None, number=0, captions=[])

    (named,) = namer._name_batch([view])

    assert sorted(named.rows) == [0, 2]
    assert named.rejected == 1
    cosines = torch.nn.functional.normalize(features, dim=-1)
    probability = (cosines * Model.logit_scale.exp()).softmax(1)
    assert named.scores[named.rows.index(0)] == pytest.approx(float(probability[0, 0]), abs=1e-6)


def test_phrases_of_a_class_name_it_in_captions():
    finder = NounFinder(["cat", "kitten", "dog"], [0, 0, 1])
    assert finder.find(["two kittens and a dog"]) == [0, 1]
    assert finder.find(["cats with kittens"]) == [0]


def test_proposals_are_found_first(model_options, photos, tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason="clim-data[proposals] is not installed")
    # The search stays in this process.
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    out = tmp_path / "labels.json"
    line = command(model_options, photos, out, "cat", "dog")
    place = line.index("--boxes")
    line[place : place + 2] = ["--proposals"]
    assert main(line) == 0
    proposals = json.loads((tmp_path / "labels.proposals.json").read_text())
    assert len(proposals["images"]) == 3
    assert len(json.loads(out.read_text())["annotations"]) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pass names to give"),
        (["cat", "--vocabulary", "words.json"], "not both"),
        (["cat", "--pictures", "photos/drawn"], "choose a folder elsewhere"),
        (["cat", "--boxes", "none.json"], "none.json"),
    ],
)
def test_mistakes_are_one_line(
    words, message, model_options, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    line = command(model_options, photos, tmp_path / "labels.json")
    # Names follow the folder; of two --boxes the last counts.
    assert main([*line[:2], *words[:1], *line[2:], *words[1:]]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.strip().count("\n") == 0


def test_an_error_in_a_part_reaches_rank_0(tmp_path):
    other = PartJob(tmp_path / "out.json", {}, parts=2, rank=1, world_size=2)

    def fails(places, bar):
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        do_parts(other, fails, images=3, part_images=2)

    done = []

    def work(places, bar):
        done.append(list(places))
        bar.update(len(places))
        return {"places": list(places)}

    first = PartJob(tmp_path / "out.json", {}, parts=2, rank=0, world_size=2, patience=0.1)
    with pytest.raises(ValueError, match="nothing came from rank 1"):
        do_parts(first, work, images=3, part_images=2)
    assert do_parts(other, work, images=3, part_images=2) is False
    assert do_parts(first, work, images=3, part_images=2) is True
    assert done == [[0, 1], [2]]
    assert [part["places"] for part in first.read()] == [[0, 1], [2]]

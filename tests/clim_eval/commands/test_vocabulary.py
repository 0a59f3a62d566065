"""One vocabulary file says what classes are called, in every command that names things."""

import json

import pytest
import torch
from clim_data import decode_rgb
from clim_eval.class_vectors import ClassSource, VocabularyFile
from clim_eval.commands.main import main
from clim_eval.embeddings import load_class_embeddings
from clim_models import create_model
from clim_models.text import embed_classes, embed_vocabulary
from PIL import Image

CLASSES = {
    "sofa": {"phrases": ["sofa", "couch"], "not": ["bench"]},
    "red car": {},
    "beast": {"phrases": [], "examples": ["pictures/beast.png"]},
}


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "pictures" / "beast.png")
    path = tmp_path / "names.json"
    path.write_text(json.dumps(CLASSES))
    return path


@pytest.fixture(scope="module")
def model(model_options):
    return create_model(model_options[1], pretrained=model_options[3])


def test_rows_come_by_name_and_phrases_under_not_behind_them(model, vocabulary):
    names = ["red car", "sofa"]
    rows = ClassSource(vocabulary, templates="photo").rows(model, names)
    photo = ["a photo of a {}."]
    plain = embed_classes(model, ["red car", "sofa", "couch", "bench"], templates=photo)
    torch.testing.assert_close(rows[0], plain[0])
    mean = torch.nn.functional.normalize(plain[1] + plain[2], dim=0)
    torch.testing.assert_close(rows[1], mean)
    torch.testing.assert_close(rows[2], plain[3])
    with pytest.raises(ValueError, match="has no class 'lamp'"):
        ClassSource(vocabulary).rows(model, ["sofa", "lamp"])
    with pytest.raises(ValueError, match="contradict"):
        ClassSource(vocabulary, vocabulary)


def test_embed_writes_the_rows_of_a_vocabulary(model, model_options, vocabulary, tmp_path, capsys):
    out = tmp_path / "classes.safetensors"
    argv = ["embed", *model_options, "--vocabulary", str(vocabulary), "--out", str(out)]
    assert main([*argv, "--templates", "name", "--no-cache"]) == 0

    assert "1 phrases under 'not' have no row" in capsys.readouterr().out
    expected = embed_vocabulary(
        model,
        CLASSES,
        templates=["{}"],
        read_example=lambda name: decode_rgb(vocabulary.parent / name),
    )
    rows = load_class_embeddings(out, list(CLASSES))
    torch.testing.assert_close(rows, expected.embeddings)


def test_show_looks_for_the_classes_of_a_vocabulary(model_options, vocabulary, tmp_path, capsys):
    picture = str(tmp_path / "pictures" / "beast.png")
    argv = ["show", picture, *model_options, "--image-px", "64", "--out", str(tmp_path / "x.png")]
    assert main([*argv, "--vocabulary", str(vocabulary)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in shown[1:]] == [*CLASSES, "picture"]
    assert main(argv) == 2
    assert "pass texts to look for, or --vocabulary" in capsys.readouterr().err


def test_regions_compete_with_phrases_under_not(model_options, tmp_path, capsys):
    """A phrase that equals the class ties with it, and a tie is wrong."""
    images = tmp_path / "images"
    images.mkdir()
    Image.effect_noise((60, 40), 90).convert("RGB").save(images / "1.png")
    contents = {
        "images": [{"id": 1, "file_name": "1.png", "width": 60, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [5, 5, 40, 30]}],
        "categories": [{"id": 4, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(contents))
    data = ["--images", str(images), "--instances-json", str(tmp_path / "boxes.json")]
    fixed = ["--outputs", "boxes", "--image-px", "64", "--templates", "name", "--no-cache"]
    accuracy = {}
    for name, entry in (
        ("alone", {"phrases": ["red car"]}),
        ("rejected", {"phrases": ["red car"], "not": ["red  car"]}),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"cat": entry}))
        out = tmp_path / name
        argv = ["regions", *model_options, *data, *fixed, "--vocabulary", str(path)]
        assert main([*argv, "--out", str(out)]) == 0
        accuracy[name] = json.loads((out / "report.json").read_text())["metrics"]
    assert accuracy["alone"]["boxes.thing.mAcc1"] == 1
    assert accuracy["rejected"]["boxes.thing.mAcc1"] == 0
    (tmp_path / "dogs.json").write_text('["dog"]')
    capsys.readouterr()
    argv = ["regions", *model_options, *data, *fixed]
    assert main([*argv, "--vocabulary", str(tmp_path / "dogs.json")]) == 2
    assert "has no class 'cat' (1 of 1 classes of the data)" in capsys.readouterr().err


def test_examples_are_named_from_the_folder_of_the_file(vocabulary):
    file = VocabularyFile.read(vocabulary)
    assert file.read_example("pictures/beast.png").shape == (3, 30, 40)

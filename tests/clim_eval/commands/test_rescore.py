"""`clim-eval rescore` on results of an imagined detector, with a tiny model."""

import json
import math

import numpy as np
import pytest
import torch
from clim_data import decode_rgb
from clim_data.pixels import letterbox, padded_boxes
from clim_eval.commands.main import main
from clim_models import create_model
from clim_models.text import embed_classes
from PIL import Image

NAMES = ("red car", "cat", "sofa")
BOXES = [[2, 3, 20, 10], [0, 0, 60, 40], [30, 5, 25, 30], [50, 30, 40, 40], [10, 10, 0, 0]]


@pytest.fixture
def data(tmp_path):
    """Two pictures and one that cannot be read; categories with gaps, in another order."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2):
        Image.effect_noise((60, 40), 90).convert("RGB").save(folder / f"{number}.png")
    size = {"width": 60, "height": 40}
    contents = {
        "images": [{"id": n, "file_name": f"{n}.png", **size} for n in (1, 2, 3, 4)],
        "categories": [{"id": i, "name": n} for i, n in zip((8, 2, 5), ("sofa", "red car", "cat"))],
    }
    (tmp_path / "images.json").write_text(json.dumps(contents))
    results = []
    for row, box in enumerate(BOXES):
        one = {"image_id": 1 + row % 2, "category_id": (2, 5, 8)[row % 3], "bbox": box}
        results.append({**one, "score": 0.1 + 0.2 * row, "quality": 0.5, "note": f"box {row}"})
    results.insert(2, {"image_id": 3, "category_id": 5, "bbox": BOXES[0], "score": 0.9})
    results[2]["quality"] = 1
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def command(data, model_options, *more):
    files = ["--detections", "results.json", "--annotations", "images.json", "--images", "images"]
    paths = [word if word.startswith("--") else str(data / word) for word in files]
    fixed = ["--image-px", "64", "--templates", "name", "--no-cache", "--out", data / "new.json"]
    return main(["rescore", *model_options, *paths, *map(str, [*fixed, *more])])


@torch.no_grad()
def expected_probabilities(data, model_options):
    """Probability of the category of each usable box, one by one."""
    model = create_model(model_options[1], pretrained=model_options[3]).eval()
    classes = embed_classes(model, NAMES, templates=["{}"])
    found = []
    for row, (left, top, width, height) in enumerate(BOXES):
        picture = decode_rgb(data / "images" / f"{1 + row % 2}.png")
        right, bottom = min(left + max(width, 1), 60), min(top + max(height, 1), 40)
        box = padded_boxes(torch.tensor([[left, top, right, bottom]]).double(), (40, 60))
        pixels = model.normalize_pixels(letterbox(picture, 64)[None])
        feature = model.encode_boxes(pixels, [box.float()])[0]
        cosines = feature.flatten() @ classes.T
        found.append((model.logit_scale.exp() * cosines).softmax(0)[row % 3].item())
    return np.array(found)


def test_scores_are_the_weighted_geometric_mean(data, model_options, capsys):
    weights = ("--weight", "0.3", "--iou-weight", "0.2", "--iou-field", "quality")

    assert command(data, model_options, *weights, "--part-images", "1") == 0

    shown = capsys.readouterr().out
    assert "scored 2 of 3 images, left out 1: missing image 1" in shown
    assert "scored 5 of 6 detections" in shown
    old = json.loads((data / "results.json").read_text())
    old = [one for one in old if one["image_id"] != 3]
    new = json.loads((data / "new.json").read_text())
    # Everything else stays, in the order of the file.
    assert [{**one, "score": 0} for one in new] == [{**one, "score": 0} for one in old]
    probabilities = expected_probabilities(data, model_options)
    scores = np.array([one["score"] for one in old])
    expected = scores**0.5 * probabilities**0.3 * 0.5**0.2
    np.testing.assert_allclose([one["score"] for one in new], expected, rtol=1e-4)

    assert command(data, model_options, *weights, "--part-images", "1") == 0
    assert command(data, model_options, "--weight", "0.4") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert command(data, model_options, "--weight", "0", "--overwrite") == 0
    same = json.loads((data / "new.json").read_text())
    assert [one["score"] for one in same] == pytest.approx(scores.tolist())


def test_images_that_were_missing_are_added_by_the_same_command(data, model_options, capsys):
    (data / "images").rename(data / "elsewhere")
    (data / "images").mkdir()
    assert command(data, model_options) == 2
    assert "nothing was scored" in capsys.readouterr().err
    (data / "images").rmdir()
    (data / "elsewhere").rename(data / "images")
    assert command(data, model_options) == 0
    assert "2 images that could not be read before can be read now" in capsys.readouterr().out
    repaired = json.loads((data / "new.json").read_text())
    assert command(data, model_options, "--overwrite") == 0
    assert json.loads((data / "new.json").read_text()) == repaired


def test_crops_and_a_vocabulary_work_as_well(data, model_options):
    names = {"cat": {"phrases": ["kitten"]}, "sofa": {}, "red car": {"not": ["red bus"]}}
    (data / "names.json").write_text(json.dumps(names))
    vocabulary = ("--vocabulary", data / "names.json")
    assert command(data, model_options, "--features", "crops", *vocabulary) == 0
    scores = [one["score"] for one in json.loads((data / "new.json").read_text())]
    assert len(scores) == 5
    assert all(0 < score < 1 for score in scores)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weight", "0.9", "--iou-weight", "0.2"], "whose sum is at most 1"),
        (["--iou-weight", "0.2"], "detection 1 has no number 'iou'"),
    ],
)
def test_mistakes_end_with_status_2(data, model_options, more, message, capsys):
    assert command(data, model_options, *more) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": -2.0}, "a sigmoid of logits"),
        ({"quality": math.nan}, "detection 1 has no number 'quality'"),
        ({"category_id": 3}, "map labels to category ids by name"),
        (None, "there is nothing to rescore"),
    ],
)
def test_results_that_cannot_be_used_are_refused(data, model_options, change, message, capsys):
    results = json.loads((data / "results.json").read_text())
    changed = [] if change is None else [{**results[0], **change}]
    (data / "results.json").write_text(json.dumps(changed))
    assert command(data, model_options, "--iou-weight", "0.1", "--iou-field", "quality") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("score", [-0.2, 87.0])
def test_scores_that_are_no_probabilities_are_refused(data, model_options, capsys, score):
    results = json.loads((data / "results.json").read_text())
    results[1]["score"] = score
    (data / "results.json").write_text(json.dumps(results))
    assert command(data, model_options) == 2
    said = capsys.readouterr().err
    assert f"{score:.6g}, and" in said
    assert "percent divided by 100" in said
    assert not (data / "new.json").exists()

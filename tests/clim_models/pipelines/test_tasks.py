"""`pipeline` on the shipped model and a small detector, from names and folders."""

import json

import numpy as np
import pytest
import torch
from clim_models import TINY, PipelineOptions, create_model, pipeline, save_model
from clim_models.detection import (
    EnsembleRules,
    FViTOptions,
    ProposalRules,
    build_fvit,
    embed_class_set,
    save_detector,
)
from clim_models.text import embed_vocabulary
from PIL import Image

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
NAME = PipelineOptions(templates=["a photo of a {}"], image_px=64)


@pytest.fixture(scope="module")
def model():
    return create_model(TINY, "emoji")


@pytest.fixture(scope="module")
def detector(model):
    torch.manual_seed(0)
    classes = embed_class_set(model, ["cat", "dog"], base=["dog"])
    options = FViTOptions(
        image_size=64,
        ensemble=EnsembleRules(0.1, 0.8, 75),
        blocks=tuple(range(model.num_blocks))[-4:],
        channels=8,
        masks=True,
        testing_proposals=ProposalRules(before_nms=50, after_nms=20),
    )
    return build_fvit(model, classes, options)


def test_a_run_folder_knows_its_model_and_a_file_its_vocabulary(model, tmp_path):
    save_model(model, tmp_path / "run" / "model")
    Image.fromarray(PICTURE).save(tmp_path / "mug.png")
    words = {"cat": {"not": ["lynx"]}, "our mug": {"phrases": [], "examples": ["mug.png"]}}
    (tmp_path / "words.json").write_text(json.dumps(words))

    name = pipeline(
        "region-classification",
        pretrained=tmp_path / "run",
        vocabulary=tmp_path / "words.json",
        options=NAME,
    )

    result = name(PICTURE, boxes=[(0, 0, 60, 40)])
    assert result.labels == ("cat", "our mug")
    pixels = torch.from_numpy(PICTURE.copy()).permute(2, 0, 1)
    expected = embed_vocabulary(
        model, words, templates=NAME.templates, read_example=lambda _: pixels
    )
    torch.testing.assert_close(name.vocabulary.embeddings, expected.embeddings)
    torch.testing.assert_close(name.vocabulary.rejects, expected.rejects)


def test_dense_takes_a_model_that_is_there(model):
    result = pipeline("dense", model=model, labels=["a cat", "a dog"], options=NAME)(PICTURE)
    assert result.maps.shape[0] == 2
    assert len(result.peaks) == 2


def test_a_detector_is_found_by_folder_file_or_object(detector, tmp_path):
    save_detector(detector, tmp_path / "run" / "model")
    options = PipelineOptions(templates=["{}"])
    places = (tmp_path / "run", tmp_path / "run" / "model" / "model.safetensors", detector)
    found = [pipeline("detection", model=place, options=options)(PICTURE) for place in places]

    expected = detector.detect([torch.from_numpy(PICTURE).permute(2, 0, 1)])[0]
    for result in found:
        assert result.labels == ("cat", "dog")
        np.testing.assert_allclose([one.box for one in result], expected.boxes, rtol=1e-4)
        assert [one.class_id for one in result] == expected.labels.tolist()
        assert np.array_equal(np.stack([one.mask for one in result]), expected.masks)

    other = pipeline("detection", model=detector, labels=["red car"], options=options)
    assert {one.label for one in other(PICTURE)} == {"red car"}
    pictures = [PICTURE, PICTURE[:30], PICTURE[:, :30]]
    many = pipeline("detection", model=detector, options=PipelineOptions(batch_size=2))(pictures)
    assert [one.size for one in many] == [(40, 60), (30, 60), (40, 30)]
    strict = pipeline("detection", model=detector, options=PipelineOptions(min_score=1.0))
    assert len(strict(PICTURE)) == 0


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("segmentation", {}, "choose from region-classification, dense, detection"),
        ("dense", {"model": TINY}, "pass labels"),
        ("dense", {"labels": ["cat"]}, "which model"),
        ("dense", {"model": "RN50", "labels": ["cat"]}, "which weights of RN50"),
        ("dense", {"labels": ["a"], "vocabulary": {"a": {}}}, "contradict"),
        ("dense", {"model": torch.nn.Linear(1, 1), "labels": ["a"]}, "model is a Linear"),
        ("detection", {}, "which detector"),
        ("detection", {"model": "x", "pretrained": "y"}, "pretrained is for CLIPs"),
        ("detection", {"model": torch.nn.Linear(1, 1)}, "pass a detector"),
    ],
)
def test_mistakes_are_answered_with_the_fix(task, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(task, **arguments)


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"image_px": 0}, {"features": "crops"}, {"min_score": 2}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PipelineOptions(**wrong)

"""A detector that was written is built again by its folder alone."""

import json
import shutil

import pytest
import torch
from clim_models import TINY, create_model
from clim_models.detection import (
    EnsembleRules,
    FrozenClipOptions,
    FViTOptions,
    ProposalRules,
    build_frozen_clip,
    build_fvit,
    embed_class_set,
    open_detector,
    save_detector,
)

PICTURE = torch.arange(3 * 40 * 60).remainder(251).to(torch.uint8).reshape(3, 40, 60)


def built(kind):
    torch.manual_seed(0)
    model = create_model(TINY, pretrained=None)
    classes = embed_class_set(model, {"cat": {"not": ["lynx"]}, "dog": {}}, base=["dog"])
    options = {
        "image_size": 64,
        "ensemble": EnsembleRules(0.1, 0.8, 75),
        "blocks": tuple(range(model.num_blocks))[-4:],
        "channels": 8,
        "masks": True,
        "testing_proposals": ProposalRules(before_nms=50, after_nms=20),
    }
    if kind == "fvit":
        return build_fvit(model, classes, FViTOptions(**options, original=True))
    return build_frozen_clip(model, classes, FrozenClipOptions(**options, width=16))


@pytest.mark.parametrize("kind", ["fvit", "frozen_clip"])
def test_a_folder_gives_the_same_detector(kind, tmp_path):
    detector = built(kind)
    save_detector(detector, tmp_path / "run" / "model")

    again = open_detector(tmp_path / "run")

    assert again.options == detector.options
    assert again.rules == detector.rules
    assert again.names == ("cat", "dog")
    assert again.classes.base == (1,)
    assert again.state_dict().keys() == detector.state_dict().keys()
    for name, value in detector.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    found, expected = again.detect([PICTURE])[0], detector.detect([PICTURE])[0]
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.masks, expected.masks)


def test_new_classes_are_embedded_by_the_text_tower_in_the_folder(tmp_path):
    detector = built("fvit")
    save_detector(detector, tmp_path)

    again = open_detector(tmp_path).with_vocabulary(["red car"])

    expected = detector.with_vocabulary(["red car"])
    torch.testing.assert_close(again.classes.embeddings, expected.classes.embeddings)


def test_folders_that_cannot_be_opened_say_why(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no detector\.json.*clim-train export"):
        open_detector(tmp_path)
    save_detector(built("fvit"), tmp_path)
    about = json.loads((tmp_path / "detector.json").read_text())

    (tmp_path / "detector.json").write_text(json.dumps({**about, "tower": "hf-hub:some/where"}))
    with pytest.raises(ValueError, match="--trust"):
        open_detector(tmp_path)

    (tmp_path / "detector.json").write_text(json.dumps({**about, "kind": "other"}))
    with pytest.raises(ValueError, match=r"KeyError\('other'\).*export it again"):
        open_detector(tmp_path)

    (tmp_path / "detector.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        open_detector(tmp_path)

    (tmp_path / "detector.json").write_text(json.dumps(about))
    named = json.loads((tmp_path / "classes.json").read_text())
    (tmp_path / "classes.json").write_text(json.dumps({**named, "base": ["wolf"]}))
    with pytest.raises(ValueError, match=r"KeyError\('wolf'\).*export it again"):
        open_detector(tmp_path)


CHANGES = {
    "a mean of text": {"mean": "abc"},
    "a mean of two": {"mean": [0.5, 0.5]},
    "a mean that is no number": {"mean": [float("nan")] * 3},
    "a standard deviation of 0": {"std": [0, 0, 0]},
    "a kind that is a list": {"kind": ["fvit"]},
    "no options": {"options": None},
    "a list of options": {"options": [1]},
}
OPTIONS = {
    "a size in text": {"image_size": "64"},
    "half a channel": {"channels": 8.5},
    "no channel": {"channels": 0},
    "rules that are a text": {"detections": "x"},
    "a switch that is a text": {"masks": "yes"},
    "blocks that are a number": {"blocks": 3},
    "an unknown option": {"evil": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    save_detector(built("fvit"), folder)
    return folder


@pytest.mark.parametrize("case", [*CHANGES, *OPTIONS])
def test_options_that_are_something_else_are_named(case, folder, tmp_path):
    about = json.loads((folder / "detector.json").read_text())
    about |= CHANGES.get(case) or {"options": {**about["options"], **OPTIONS[case]}}
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "detector.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"export it again|pass at least 1"):
        open_detector(damaged)


@pytest.mark.parametrize("names", [[1, 2], "ab", None, {"cat": 1}, [["cat"], "dog"]])
def test_names_that_are_no_texts_are_refused(names, folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "classes.json").write_text(json.dumps({"names": names, "base": []}))
    with pytest.raises(ValueError, match=r"names are .*export it again"):
        open_detector(damaged)


def test_names_of_another_number_of_classes_are_refused(folder, tmp_path):
    """One phrase of the detector competes: it has an embedding, and no name."""
    named = json.loads((folder / "classes.json").read_text())
    names = named["names"]
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    for wrong in (names[:-1], [*names, "yeti"]):
        (damaged / "classes.json").write_text(json.dumps({**named, "names": wrong, "base": []}))
        with pytest.raises(ValueError, match=rf"names {len(wrong)} classes, the weights have"):
            open_detector(damaged)

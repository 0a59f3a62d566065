"""A vocabulary for a grounder: several phrases of a class, phrases that compete, no examples."""

import json

import pytest
import torch
from flmm.commands.main import main
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.pipeline import GroundingPipeline
from flmm.grounders.vocabulary import VocabularyPhrases, overlaps
from tiny_grounding import save_tiny_grounded
from tiny_lmms import picture

ANIMALS = {
    "cat": {"phrases": ["cat", "kitten"], "not": ["lynx"]},
    "dog": {"phrases": {"dog": 2, "puppy": 1}, "not": ["wolf"]},
    "sofa": {},
}


def found_at(**scores):
    """The masks of the phrases of `ANIMALS`, each a row of the image, with scores."""
    masks = torch.full((7, 10, 10), -2.0)
    rows = {"cat": 0, "kitten": 1, "dog": 2, "puppy": 3, "sofa": 4, "lynx": 0, "wolf": 2}
    for number, row in enumerate(rows.values()):
        masks[number, row] = 2
    values = torch.tensor([scores.get(phrase, 0.5) for phrase in rows])
    return ScoredMasks(masks, values)


def test_phrases_are_asked_once_and_those_under_not_last():
    asked = VocabularyPhrases.of(ANIMALS)
    assert asked.phrases == ("cat", "kitten", "dog", "puppy", "sofa", "lynx", "wolf")
    assert asked.names == ("cat", "dog", "sofa")
    shared = {"a": {"phrases": ["x"], "not": ["y"]}, "b": {"phrases": ["x"], "not": ["y"]}}
    assert VocabularyPhrases.of(shared).phrases == ("x", "y")


def test_a_class_has_the_mask_of_its_best_phrase():
    asked = VocabularyPhrases.of(ANIMALS)
    found = asked.masks(found_at(cat=0.6, kitten=0.7, dog=0.4, puppy=0.7, lynx=0.9))
    assert found.scores.tolist() == pytest.approx([0.7, 0, 0.5])
    rows = [mask.any(1).nonzero().flatten().tolist() for mask in found.binary()]
    assert rows == [[1], [], [4]]  # the wolf, 0.5, has the dog


def test_a_phrase_under_not_takes_what_it_fits_better_and_nothing_else():
    asked = VocabularyPhrases.of(ANIMALS)
    beaten = asked.masks(found_at(cat=0.8, lynx=0.9, dog=0.8, wolf=0.7))
    assert beaten.scores.tolist() == pytest.approx([0.0, 0.8, 0.5])
    assert [bool(mask.any()) for mask in beaten.binary()] == [False, True, True]
    elsewhere = asked.masks(found_at(kitten=0.8, lynx=0.9))  # the lynx is another thing
    assert elsewhere.binary()[0, 1].all()


def test_boxes_that_the_lmm_wrote_stay_with_the_chosen_phrase():
    found = found_at(kitten=0.9)
    places = tuple(((float(n), 0.0, float(n) + 1, 1.0),) for n in range(7))
    with_places = ScoredMasks(found.masks, found.scores, found.kind, places)
    assert VocabularyPhrases.of(ANIMALS).masks(with_places).places == (
        places[1],
        places[2],
        places[4],
    )


def test_overlaps_of_nothing_are_none():
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert overlaps(empty, empty).tolist() == [[0]]
    assert overlaps(empty, empty[:0]).shape == (1, 0)


def test_example_pictures_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="'cat' has example pictures, and an LMM reads words only"):
        VocabularyPhrases.of({"cat": {"examples": ["cat.png"]}})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Heads of a tiny model, a picture, a folder of pictures and a vocabulary."""
    root = tmp_path_factory.mktemp("vocabulary")
    save_tiny_grounded(root)
    (root / "photos").mkdir()
    for number in range(2):
        picture(60, 90, seed=number).save(root / "photos" / f"{number}.png")
    (root / "animals.json").write_text(json.dumps(ANIMALS))
    return root


def ground(place, image, out, *more):
    options = ["--checkpoint", place / "heads", "--device", "cpu", "-o", out, *more]
    return main(["ground", *map(str, [image, *options])])


def test_a_picture_and_a_folder_have_the_same_classes(place, tmp_path, capsys):
    words = ["--vocabulary", place / "animals.json"]
    assert ground(place, place / "photos" / "0.png", tmp_path / "one.png", *words) == 0
    one = json.loads((tmp_path / "one.json").read_text())["phrases"]
    assert [entry["phrase"] for entry in one] == ["cat", "dog", "sofa"]

    folder = tmp_path / "all.json"
    assert ground(place, place / "photos", folder, *words, "--workers", "0") == 0
    content = json.loads(folder.read_text())
    assert [entry["name"] for entry in content["categories"]] == ["cat", "dog", "sofa"]
    entries = [*content["annotations"], *content["not_found"]]
    scores = {e["category_id"]: e["score"] for e in entries if e["image_id"] == 1}
    assert [scores[number] for number in (1, 2, 3)] == pytest.approx(
        [entry["score"] for entry in one], abs=2e-4
    )

    other = {**ANIMALS, "cat": {"phrases": ["cat", "kitten"]}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    changed = ["--vocabulary", tmp_path / "other.json"]
    assert ground(place, place / "photos", folder, *changed, "--workers", "0") == 2
    capsys.readouterr()
    assert ground(place, place / "photos" / "0.png", tmp_path / "two.png", "a cat", *words) == 2
    assert "only one of them" in capsys.readouterr().err


def test_the_pipeline_takes_a_vocabulary(place):
    import flmm

    find = flmm.pipeline("grounding", heads=place / "heads", vocabulary=ANIMALS, device="cpu")
    result = find(place / "photos" / "0.png")
    assert result.labels == ("cat", "dog", "sofa")
    assert {region.label for region in result} <= {"cat", "dog", "sofa"}
    assert find(place / "photos" / "0.png", ["a tree"]).labels == ("a tree",)
    with pytest.raises(ValueError, match="what is looked for"):
        GroundingPipeline(find.grounder)(place / "photos" / "0.png")

"""Tags of captions, against the golden case 08."""

import numpy as np
import pytest
from clim_data.derive.caption_tags import CaptionTagger


def tagger_of(case, kind, rule):
    categories = case.meta["data"][kind]["categories"]
    ids = [category["id"] for category in categories]
    return CaptionTagger([category["synonyms"] for category in categories], rule), ids


@pytest.mark.parametrize("kind", ["coco", "own"])
def test_golden_tags_of_sentences(golden, kind):
    case = golden("case08_tags", "detic")
    tagger, _ = tagger_of(case, kind, "original")
    sentences = case.meta["data"][kind]["sentences"]
    expected = case.arrays[f"out/{kind}/matrix"]
    found = np.zeros_like(expected)
    for row, sentence in zip(found, sentences, strict=True):
        row[tagger.tags([sentence])] = True
    assert (found == expected).all()


def test_golden_tags_of_several_captions(golden):
    case = golden("case08_tags", "detic")
    data = case.meta["data"]["several_captions"]
    tagger, ids = tagger_of(case, data["categories"], "original")
    together = [[ids[number] for number in tagger.tags(some)] for some in data["captions"]]
    assert together == data["allcaps"]
    first = [[ids[number] for number in tagger.tags(some[:1])] for some in data["captions"]]
    assert first == data["first_only"]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog.", [0]),
        ("Two dogs, and a bus!", [0, 2]),
        ("dog", [0]),
        ("a hot dog", [1]),
        ("buses and knives", [2, 3]),
        ("three men on a double-decker", [2, 4]),
        ("doggy bag", []),
        ("", []),
    ],
)
def test_words_are_compared_by_default(caption, expected):
    names = [["dog"], ["hot_dog"], ["bus_(vehicle)", "double-decker"], ["knife"], ["man"]]
    assert CaptionTagger(names).tags([caption]) == expected


def test_captions_do_not_run_into_each_other_by_default():
    assert CaptionTagger([["wine glass"]]).tags(["a wine", "glass of water"]) == []
    with pytest.raises(ValueError, match="legal values are words, original"):
        CaptionTagger([["a"]], "letters")
    with pytest.raises(ValueError, match="class 1 has no name"):
        CaptionTagger([["a"], []])

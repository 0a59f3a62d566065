import pytest
from clim_eval.labelling.nouns import NounFinder, base_forms, words_of

NOUNS = [
    "dog",
    "hot dog",
    "person",
    "woman",
    "glass",
    "glasses",
    "knife",
    "bus",
    "strawberry",
    "wall-other",
    "leaves",
]


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog.", ["dog"]),
        ("Two DOGS playing", ["dog"]),
        ("the dog's bowl", ["dog"]),
        ("a hot-dog", ["hot dog"]),
        ("hot dogs and a dog", ["dog", "hot dog"]),
        ("a hot summer", []),
        ("dogma, hotdog", []),
        ("people and women", ["person", "woman"]),
        ("a glass of water", ["glass"]),
        ("a man with glasses", ["glasses"]),
        ("knives beside strawberries", ["knife", "strawberry"]),
        ("buses", ["bus"]),
        ("a box on a wall other than this", ["wall-other"]),
        ("a leaf", ["leaves"]),
        ("", []),
        ("Ein Hund über dem Tisch", []),
    ],
)
def test_nouns_of_a_caption(caption, found):
    assert [NOUNS[i] for i in NounFinder(NOUNS).find([caption])] == sorted(found, key=NOUNS.index)


def test_captions_add_up_and_equal_nouns_are_all_found():
    finder = NounFinder(["hot-dog", "cat", "hot dog"])
    assert finder.find(["a cat", "hot dogs", "another cat"]) == [0, 1, 2]


def test_words_and_forms():
    assert words_of("A man's hot-dog_stand, café №5") == [
        "a",
        "man",
        "hot",
        "dog",
        "stand",
        "café",
        "5",
    ]
    assert base_forms("cities")[:2] == ["cities", "city"]
    assert base_forms("class") == ["class"]
    assert "wolf" in base_forms("wolves")
    assert "horse" in base_forms("horses")
    assert base_forms("gas") == ["gas"]


def test_a_noun_without_letters_is_refused():
    with pytest.raises(ValueError, match="leave it out"):
        NounFinder(["dog", "--"])

"""Noun chunks, which of them are worth a mask, and where they stand."""

import pytest
from flmm.text import phrases
from flmm.text.phrases import (
    check_phrases,
    groundable,
    noun_chunks,
    phrase_spans,
    simple_chunks,
    spans_to_ground,
)


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        (
            "a bear left of two dogs and the left of a tree .",
            ["a bear", "two dogs", "the left", "a tree"],
        ),
        ("A big dog is standing beside a tree.", ["A big dog", "a tree"]),
        ("It looks at the man holding a yellow umbrella.", ["the man", "a yellow umbrella"]),
        (
            "Two red cars, a bus and three people on the street",
            ["Two red cars", "a bus", "three people", "the street"],
        ),
        (
            "A cat sits on the bed, next to a woman dressed in black.",
            ["A cat", "the bed", "a woman"],
        ),
        ("The building has some windows.", ["The building", "some windows"]),
        ("Yes.", []),
        ("a red bus near a tree.", ["a red bus", "a tree"]),
        ("A tall building with a flag.", ["A tall building", "a flag"]),
        ("a wooden bed in the room.", ["a wooden bed", "the room"]),
        ("a green cactus in the pot.", ["a green cactus", "the pot"]),
        ("a 5.5 inch phone and the U.S. flag.", ["a 5.5 inch phone", "the U.S. flag"]),
        ("The man’s hat and the dog’s tail.", ["The man’s hat", "the dog’s tail"]),
        ("the cafe\u0301 table", ["the cafe\u0301 table"]),
        ("", []),
        ("the", []),
    ],
)
def test_simple_chunks(text, chunks):
    assert simple_chunks(text) == chunks


def test_chunks_are_found_again_in_a_text_with_uneven_spaces():
    text = "A  big dog sits near the\nred car\u00a0."
    assert simple_chunks(text) == ["A  big dog", "the\nred car"]
    assert spans_to_ground(text, simple_chunks) == [(0, 10), (21, 32)]


def test_pronouns_the_image_and_absent_things_are_skipped():
    chunks = ["It", "the image", "a dog", "a dog", "the man's hat", "them", " ", "no cat"]
    assert groundable(chunks) == ["a dog", "a dog", "the man's hat"]
    assert groundable(["the photo", "a picture", "the picture frame"]) == [
        "a picture",
        "the picture frame",
    ]


def grounded(text, chunker=simple_chunks):
    return [text[start:end] for start, end in spans_to_ground(text, chunker)]


def test_every_mention_is_a_phrase_of_its_own():
    text = "a cat on a sofa near a cat."
    assert spans_to_ground(text, simple_chunks) == [(0, 5), (9, 15), (21, 26)]


def test_letters_inside_a_longer_word_drop_nothing():
    assert grounded("a car beside a carrot.") == ["a car", "a carrot"]
    assert grounded("a caterpillar and a cat") == ["a caterpillar", "a cat"]
    listed = ", ".join(f"a thing number{i}" for i in range(12))
    assert len(grounded(listed)) == 12


def test_a_chunk_inside_another_is_skipped_by_its_place():
    chunks = ["the man's hat", "the man", "the man"]
    text = "the man's hat and the man"
    assert grounded(text, lambda text: chunks) == ["the man's hat", "the man"]


def test_absent_things_and_answers_without_a_chunk_have_no_span():
    assert grounded("A bed without a pillow.") == ["A bed"]
    assert grounded("No dog.", lambda text: ["dog"]) == []
    assert spans_to_ground("  \n") == []
    assert spans_to_ground("Yes. ") == []


def test_spans_are_whole_words_in_the_order_asked_for():
    text = "the manhole near the man and a cat"
    assert phrase_spans(text, ["a cat", "the man"]) == [(29, 34), (17, 24)]
    assert phrase_spans("a red car", ["red car", "a red"]) == [(2, 9), (0, 5)]  # may overlap
    assert phrase_spans("a cat, a cat", "a cat") == [(0, 5), (7, 12)]
    assert phrase_spans("a cat, a cat", [(7, 12)]) == [(7, 12)]
    for wrong in ("a dog", "an", "hole"):
        with pytest.raises(ValueError, match=f"'{wrong}' is not in the answer"):
            phrase_spans(text, [wrong])
    with pytest.raises(ValueError, match="phrase 1 of 1 is empty"):
        phrase_spans(text, [""])
    with pytest.raises(ValueError, match="characters 30 to 40 are not in the answer"):
        phrase_spans(text, [(30, 40)])


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("The man’s hat.", "the man's hat", "The man’s hat"),
        ("a  red\ncar", "a red car", "a  red\ncar"),
        ("the cafe\u0301 table", "the caf\u00e9", "the cafe\u0301"),
        ("the caf\u00e9 table", "the cafe\u0301", "the caf\u00e9"),
        ("一只猫坐在沙发上", "猫", "猫"),
        ("(a cat)", "(a cat)", "(a cat)"),
    ],
)
def test_typed_phrases_match_however_they_are_written(text, phrase, found):
    ((start, end),) = phrase_spans(text, [phrase])
    assert text[start:end] == found


def test_a_phrase_is_not_found_without_its_accent():
    with pytest.raises(ValueError, match="is not in the answer"):
        phrase_spans("the cafe\u0301 table", ["the cafe"])


def test_user_phrases_are_one_text_or_several():
    assert check_phrases("a cat") == ["a cat"]
    assert check_phrases(phrase for phrase in ["a cat", "a dog"]) == ["a cat", "a dog"]
    for wrong, message in (
        ([], "at least one phrase"),
        (["a", " "], "phrase 2 of 2 is empty"),
        ([None], "phrase 1 of 1 is None: pass texts"),
        (["a \udcff cat"], "holds bytes that are no text"),
    ):
        with pytest.raises(ValueError, match=message):
            check_phrases(wrong)


def test_without_spacy_simple_rules_are_used(monkeypatch):
    monkeypatch.setattr(phrases, "has_spacy", lambda: False)
    assert noun_chunks("A dog barks at the cat.") == simple_chunks("A dog barks at the cat.")
    monkeypatch.setattr(phrases, "has_spacy", lambda: True)
    monkeypatch.setattr(phrases, "_spacy_chunks", lambda text: ["spaCy's"])
    assert noun_chunks("A dog") == ["spaCy's"]

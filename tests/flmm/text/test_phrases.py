"""Noun chunks, which of them are worth a mask, and where they stand."""

import pytest
from flmm.text import phrases
from flmm.text.phrases import groundable, noun_chunks, phrase_spans, simple_chunks, spans_to_ground


def test_golden_phrases_of_answers(golden):
    for case in golden("demo/text_logic", "flmm").meta["phrases"]:
        assert sorted(groundable(case["noun_chunks"])) == case["kept_set"]
        spans = spans_to_ground(case["text"], lambda text, case=case: case["noun_chunks"])
        assert [list(span) for span in spans] == case["char_spans"]
        assert [case["text"][a:b] for a, b in spans] == case["phrases"]


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


def test_pronouns_the_image_and_parts_are_left_out():
    assert groundable(
        ["It", "the image", "a dog", "a dog", "the man", "the man's hat", "them", " "]
    ) == [
        "a dog",
        "the man's hat",
    ]


def test_spans_are_whole_words_in_the_order_of_the_text():
    text = "the manhole near the man and a cat"
    assert phrase_spans(text, ["a cat", "the man"]) == [(17, 24), (29, 34)]
    assert phrase_spans("a red car", ["red car", "a red"]) == [
        (0, 5)
    ]  # of two that overlap the first
    with pytest.raises(ValueError, match="'a dog' is not in the answer"):
        phrase_spans(text, ["a dog"])
    with pytest.raises(ValueError, match="is not in the answer"):
        phrase_spans(text, [""])


def test_without_spacy_simple_rules_are_used(monkeypatch):
    monkeypatch.setattr(phrases, "has_spacy", lambda: False)
    assert noun_chunks("A dog barks at the cat.") == simple_chunks("A dog barks at the cat.")
    monkeypatch.setattr(phrases, "has_spacy", lambda: True)
    monkeypatch.setattr(phrases, "_spacy_chunks", lambda text: ["spaCy's"])
    assert noun_chunks("A dog") == ["spaCy's"]


def test_a_text_of_spaces_has_no_span():
    assert spans_to_ground("  \n") == []
    assert spans_to_ground("Yes. ") == [(0, 4)]

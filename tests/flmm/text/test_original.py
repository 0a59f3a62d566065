"""The original's rule for the phrases of an answer."""

import pytest
from flmm.text.original import original_chunks, original_spans
from flmm.text.phrases import simple_chunks, spans_to_ground


def test_golden_phrases_of_answers(golden):
    for case in golden("demo/text_logic", "flmm").meta["phrases"]:
        text = case["text"]
        assert sorted(original_chunks(case["noun_chunks"])) == case["kept_set"]

        spans = original_spans(text, lambda text, case=case: case["noun_chunks"])
        assert [list(span) for span in spans] == case["char_spans"]
        assert [text[start:end] for start, end in spans] == case["phrases"]


def test_it_compares_letters_and_takes_the_first_mention():
    text = "a car beside a carrot, near a car"
    assert original_chunks(simple_chunks(text)) == ["a carrot"]
    assert original_spans(text, simple_chunks) == [(13, 21)]
    # The default compares words and takes every mention.
    assert spans_to_ground(text, simple_chunks) == [(0, 5), (13, 21), (28, 33)]

    assert original_spans("a cat, a cat", simple_chunks) == [(0, 5)]
    assert original_chunks(["It", "the imagery", " ", "no dog"]) == ["no dog"]


def test_of_two_chunks_that_overlap_the_earlier_one_stays():
    assert original_spans("a red car", lambda text: ["red car", "a red"]) == [(0, 5)]


def test_an_answer_without_a_chunk_is_one_phrase():
    assert original_spans("Yes. ", simple_chunks) == [(0, 4)]
    assert spans_to_ground("Yes. ", simple_chunks) == []
    assert original_spans("  \n", simple_chunks) == []


def test_a_chunk_that_is_not_in_the_text_is_named():
    with pytest.raises(ValueError, match="'a dog' is not in the answer"):
        original_spans("a cat", lambda text: ["a dog"])

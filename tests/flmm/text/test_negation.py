"""Phrases that a text says to be absent."""

import pytest
from flmm.text.phrases import simple_chunks, spans_to_ground


@pytest.mark.parametrize(
    ("text", "grounded"),
    [
        ("There is no dog.", []),
        ("There is no dog in the picture.", []),
        ("There isn't a dog.", []),
        ("There isn’t a dog here.", []),
        ("I cannot see a dog or a cat.", []),
        ("There is no dog or a cat.", []),
        ("There is neither a dog nor a cat.", []),
        ("I don't see a dog, a cat, or a cow.", []),
        ("No, I do not see any dog.", []),
        ("The image does not show a dog.", []),
        ("There is no sign of a dog.", []),
        ("Not a single dog.", []),
        ("No.", []),
        ("Nothing.", []),
        ("", []),
        ("There is no dog on the sofa.", ["the sofa"]),
        ("A man without a hat or a coat.", ["A man"]),
        ("The man is not wearing a hat.", ["The man"]),
        ("The dog is not on the sofa.", ["The dog", "the sofa"]),
        ("It is not a dog but a cat.", ["a cat"]),
        ("No, there is a dog.", ["a dog"]),
        ("There is no dog, but a cat sits on a chair.", ["a cat", "a chair"]),
        ("There is a dog. There is no cat. A cow stands.", ["a dog", "A cow"]),
        ("The man is not looking at a dog.", ["The man", "a dog"]),
        ("A dog, a cat, and a cow.", ["A dog", "a cat", "a cow"]),
    ],
)
def test_absent_things_are_not_grounded(text, grounded):
    spans = spans_to_ground(text, simple_chunks)
    assert [text[start:end] for start, end in spans] == grounded

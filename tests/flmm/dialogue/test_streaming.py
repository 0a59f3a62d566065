"""Answers in pieces: their text, their features, and letters of several tokens."""

import pytest
import torch
from flmm.dialogue.answers import ask
from flmm.dialogue.streaming import AnswerStream
from tiny_lmms import picture
from tiny_web import QUESTION, speaking_demo


@pytest.fixture(scope="module")
def lmm():
    return speaking_demo().model.lmm


@pytest.mark.parametrize("longest", [1, 2, 12])
def test_pieces_are_the_answer_and_features_those_of_generation(lmm, longest):
    image = picture(60, 90)
    pieces = []
    streamed = ask(lmm, image, QUESTION, max_new_tokens=longest, on_text=pieces.append)
    plain = ask(lmm, image, QUESTION, max_new_tokens=longest)
    assert "".join(pieces) == streamed.text == plain.text
    assert longest < 12 or len(pieces) > 5
    assert torch.equal(streamed.generated.ids, plain.generated.ids)
    assert torch.equal(streamed.generated.maps, plain.generated.maps)
    assert torch.equal(streamed.generated.states, plain.generated.states)


def test_what_the_listener_raises_ends_the_answer(lmm):
    def leave(piece):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ask(lmm, picture(60, 90), QUESTION, max_new_tokens=12, on_text=leave)
    assert ask(lmm, picture(60, 90), QUESTION, max_new_tokens=2).text  # nothing is left behind


def test_letters_of_several_tokens_and_rewritten_ends_wait():
    texts = ["", "a", "a\ufffd", "aä", "aä ", "aä.", "aä. b"]
    pieces = []
    stream = AnswerStream(lambda ids: texts[len(ids)], pieces.append)
    for count in range(1, len(texts)):
        assert stream(torch.zeros(count + 1, dtype=torch.int64)) is False
    stream.finish("aä. b!")
    assert pieces == ["a", "ä", ".", " b", "!"]

"""An answer in pieces, while the LMM writes it."""

from collections.abc import Callable, Sequence

from torch import Tensor

OnText = Callable[[str], None]
"""A function that takes each new piece of an answer. An error that it raises ends the answer."""


class AnswerStream:
    """Passes the text of an answer on, token by token.

    It is the `stop` of `FrozenLMM.generate`: attention and states come from the same single
    generation. The pieces together are `Answer.text`: a token is passed on once the LMM has read
    it, a letter once all of its bytes are there, and a space once a word follows.

    Args:
        decode: text of token ids.
        on_text: takes the pieces.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], on_text: OnText):
        self._decode, self._on_text = decode, on_text
        self._sent = ""

    def __call__(self, ids: Tensor) -> bool:
        """Take all generated ids (A,); never ends the answer."""
        text = self._decode(ids[:-1].tolist())
        self._pass_on(text.rstrip("\ufffd").rstrip())
        return False

    def finish(self, text: str) -> None:
        """Pass on the part of the text that was not passed on yet."""
        self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        # A tokenizer may rewrite the end of a text; such an end waits for the next token.
        if len(text) > len(self._sent) and text.startswith(self._sent):
            piece = text[len(self._sent) :]
            self._sent = text
            self._on_text(piece)

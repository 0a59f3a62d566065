"""Token ids of a prompt and its answer, and which phrase each token belongs to.

An answer is a sequence of segments (text, phrase index or -1). Each is encoded by itself and
without special tokens, so that a token never straddles two phrases; nothing is put between them. A
tokenizer that starts every text with a space (Llama's) thereby separates them, one that does not
(Qwen's, GPT-2's byte-level ones) needs `spaced=True`.

Letters: T tokens of prompt and answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from clim_data import GroundingSample
from torch import Tensor

NO_PHRASE = -1
IGNORED_LABEL = -100


class TextEncoder(Protocol):
    """The one method of a transformers tokenizer that is needed here."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class TokenizedText:
    """A prompt and its answer.

    input_ids: int64 (T,).
    phrase_ids: int64 (T,), the phrase a token belongs to, -1 for prompt, image and words between
    phrases. prompt_tokens: how many of the T are the prompt. wording: the text of each phrase;
    empty where only ids are known.
    """

    input_ids: Tensor
    phrase_ids: Tensor
    prompt_tokens: int
    wording: tuple[str, ...] = ()

    @property
    def labels(self) -> Tensor:
        """Targets of a captioning loss, int64 (T,): -100 on the prompt, the ids elsewhere."""
        labels = self.input_ids.clone()
        labels[: self.prompt_tokens] = IGNORED_LABEL
        return labels

    @property
    def phrases(self) -> int:
        """Number of phrases."""
        return int(self.phrase_ids.max()) + 1 if len(self.phrase_ids) else 0

    def phrase_positions(self) -> list[Tensor]:
        """List the positions (t,) of the tokens of each phrase."""
        return [(self.phrase_ids == k).nonzero().flatten() for k in range(self.phrases)]

    def expand(self, token_id: int, images: Sequence[Tensor]) -> "TokenizedText":
        """Put the ids (t,) of the k-th image in place of the k-th `token_id`.

        Raises:
            ValueError: the prompt holds another number of `token_id` than there are images, or the
                answer holds one.
        """
        places = (self.input_ids == token_id).nonzero().flatten().tolist()
        if len(places) != len(images):
            raise ValueError(
                f"{len(places)} image tokens for {len(images)} images: put one for each into the "
                "prompt"
            )
        if places and places[-1] >= self.prompt_tokens:
            raise ValueError("the answer holds the image token: take it out of the text")

        ids, phrases, after = [], [], 0
        for place, image in zip(places, images):
            ids += [self.input_ids[after:place], image]
            phrases += [self.phrase_ids[after:place], torch.full_like(image, NO_PHRASE)]
            after = place + 1
        ids.append(self.input_ids[after:])
        phrases.append(self.phrase_ids[after:])

        whole = torch.cat(ids)
        return replace(
            self,
            input_ids=whole,
            phrase_ids=torch.cat(phrases),
            prompt_tokens=self.prompt_tokens + len(whole) - len(self.input_ids),
        )


def tokenize_segments(
    tokenizer: TextEncoder,
    prompt: str | Sequence[int],
    segments: Sequence[tuple[str, int]],
    *,
    spaced: bool = False,
) -> TokenizedText:
    """Prompt, then the segments of a narrative, as the Panoptic Narrative Grounding readers give
    them.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: text, or ids that a chat template made already.
        segments: (text, phrase index or -1).
        spaced: encode every segment with a leading space, for tokenizers that add none of their
            own.

    Raises:
        ValueError: phrase indices are not 0, 1, ... in order of appearance, or a phrase has no
            token.
    """
    ids = _prompt_ids(tokenizer, prompt)
    pieces = [(_encode(tokenizer, text, spaced=spaced), phrase) for text, phrase in segments]
    wording = tuple(text for text, phrase in segments if phrase != NO_PHRASE)
    return replace(_join(ids, pieces), wording=wording)


def tokenize_expressions(
    tokenizer: TextEncoder,
    prompt: str | Sequence[int],
    expressions: Sequence[str],
    *,
    spaced: bool = False,
) -> TokenizedText:
    """Prompt, then referring expressions, each a phrase of its own followed by one full stop that
    belongs to none.

    Arguments are those of `tokenize_segments`. The full stop is the last token of an encoded ".".

    Raises:
        ValueError: an expression without a token.
    """
    ids = _prompt_ids(tokenizer, prompt)
    stop = [tokenizer.encode(".", add_special_tokens=False)[-1]]
    pieces = []
    for index, expression in enumerate(expressions):
        pieces += [(_encode(tokenizer, expression, spaced=spaced), index), (stop, NO_PHRASE)]
    return replace(_join(ids, pieces), wording=tuple(expressions))


def tokenize_sample(
    tokenizer: TextEncoder,
    prompt: str | Sequence[int],
    sample: GroundingSample,
    *,
    spaced: bool = False,
) -> TokenizedText:
    """Prompt, then the text of a sample of clim-data: a narrative, or expressions; phrase k has the
    sample's mask k.

    Arguments are those of `tokenize_segments`.
    """
    if sample.kind == "expressions":
        expressions = [phrase.text for phrase in sample.phrases]
        return tokenize_expressions(tokenizer, prompt, expressions, spaced=spaced)
    return tokenize_segments(tokenizer, prompt, sample.segments, spaced=spaced)


def phrase_token_spans(
    offsets: Sequence[tuple[int, int]],
    character_spans: Sequence[tuple[int, int]],
    *,
    straddling: str = "keep",
) -> list[tuple[int, int]]:
    """Token span (start, end exclusive) of each span of characters, by the tokenizer's offsets.

    Args:
        offsets: (start, end) characters of every token.
        character_spans: (start, end) of every phrase in the text.
        straddling: a last token that also holds characters after the phrase ("tree." for "tree")
            stays, or is dropped as long as one token remains ("drop", as the original F-LMM does).

    Raises:
        ValueError: a span is empty or reaches out of the text; an unknown `straddling`.
    """
    if straddling not in ("keep", "drop"):
        raise ValueError(f'straddling={straddling!r} is not known: use "keep" or "drop"')
    spans = []
    for start, end in character_spans:
        first = next((t for t, (a, b) in enumerate(offsets) if a <= start < b), None)
        if first is None or end <= start or end > offsets[-1][1]:
            raise ValueError(
                f"characters {start} to {end} are not in the text: pass spans of the text that was "
                "encoded"
            )
        if straddling == "keep":
            after = next(
                (t for t, (a, b) in enumerate(offsets) if a >= end and b > a), len(offsets)
            )
        else:
            after = next((t for t, (a, b) in enumerate(offsets) if a <= end < b), len(offsets))
        spans.append((first, max(after, first + 1)))
    return spans


def _prompt_ids(tokenizer: TextEncoder, prompt: str | Sequence[int]) -> list[int]:
    """Return the ids of a prompt; the tokenizer adds its own to a text, such as a leading BOS."""
    return tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)


def _encode(tokenizer: TextEncoder, text: str, *, spaced: bool) -> list[int]:
    text = f" {text}" if spaced else text
    if special_tokens_in(tokenizer, text):
        # "</s>" in a user's text is ordinary text, and does not end anything.
        split: Any = {"split_special_tokens": True}
        return tokenizer.encode(text, add_special_tokens=False, **split)
    return tokenizer.encode(text, add_special_tokens=False)


def special_tokens_in(tokenizer: Any, text: str) -> list[str]:
    """List the tokens in a text that begin, end or pad texts of this tokenizer."""
    special = getattr(tokenizer, "special_tokens_map", {}).values()
    return [token for token in special if isinstance(token, str) and token in text]


def _join(prompt_ids: list[int], pieces: Sequence[tuple[list[int], int]]) -> TokenizedText:
    named = [phrase for _, phrase in pieces if phrase != NO_PHRASE]
    if named != list(range(len(named))):
        raise ValueError(
            f"phrase indices {named} must be 0, 1, 2, ... in order: number the phrases as they "
            "appear"
        )
    empty = [phrase for ids, phrase in pieces if phrase != NO_PHRASE and not ids]
    if empty:
        raise ValueError(f"phrases {empty} have no token: leave out phrases without text")
    ids, phrase_ids = list(prompt_ids), [NO_PHRASE] * len(prompt_ids)
    for piece, phrase in pieces:
        ids += piece
        phrase_ids += [phrase] * len(piece)
    return TokenizedText(torch.tensor(ids), torch.tensor(phrase_ids), len(prompt_ids))

"""Inputs and outputs of a frozen LMM."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.text.tokens import TokenizedText, phrase_token_spans


@dataclass(frozen=True)
class Sample:
    """An image, and a prompt and answer about it.

    image: as `Family.prepare` makes it. text: holds the image token once, or once for each of the
    image's tokens.
    """

    image: PreparedImage
    text: TokenizedText


@dataclass(frozen=True)
class PhraseFeatures:
    """Features of the phrases of one image from a frozen LMM.

    maps: (N, C, h, w) float32 attention maps. states: (L, T, D) hidden states in the model's dtype.
    lengths: tokens of each phrase, their sum is T. layout: how maps lie on the image. chances:
    (T, 3) of the tokens, see `flmm.adapters.chances.token_chances`; None where they are not known.
    wording: the text of each phrase; empty where it is not known. Masks do not depend on chances
    and wording, scores do.
    """

    maps: Tensor
    states: Tensor
    lengths: tuple[int, ...]
    layout: ImageLayout
    chances: Tensor | None = None
    wording: tuple[str, ...] = ()


def join_phrases(parts: Sequence[PhraseFeatures]) -> PhraseFeatures:
    """Join features of phrases of one image, which come from one or several texts."""
    if len(parts) == 1:
        return parts[0]
    lengths: tuple[int, ...] = ()
    for part in parts:
        lengths += part.lengths
    maps = torch.cat([part.maps for part in parts])  # (N, C, h, w)
    states = torch.cat([part.states for part in parts], dim=1)  # (L, T, D)
    known = [part.chances for part in parts if part.chances is not None]
    chances = torch.cat(known) if len(known) == len(parts) else None  # (T, 3)
    wording: tuple[str, ...] = ()
    if all(len(part.wording) == len(part.lengths) for part in parts):
        wording = sum((part.wording for part in parts), ())
    return PhraseFeatures(maps, states, lengths, parts[0].layout, chances, wording)


@dataclass(frozen=True)
class GeneratedAnswer:
    """Generated tokens and their features.

    ids: (A,) tokens. maps: (A - 1, C, t) attention of all but the last one, which the LMM writes
    but never reads. states: (L, A - 1, D). layout: how the t image tokens lie on the image.
    chances: (A - 1, 3), as in `PhraseFeatures`.
    """

    ids: Tensor
    maps: Tensor
    states: Tensor
    layout: ImageLayout
    chances: Tensor | None = None

    def phrases(
        self,
        spans: Sequence[tuple[int, int]],
        *,
        merge: str = "mean",
        wording: Sequence[str] = (),
    ) -> PhraseFeatures:
        """Return the features of token spans (start, end exclusive) of the answer.

        Args:
            merge: how the tokens of a phrase become one map, as in `FrozenLMM.forward`.
            wording: the text of each span, if it is known.

        Raises:
            ValueError: a span is empty or reaches beyond the tokens that have features.
        """
        known = self.maps.shape[0]
        if wrong := [span for span in spans if not 0 <= span[0] < span[1] <= known]:
            raise ValueError(
                f"token spans {wrong} are not in the answer's {known} tokens with features: pass "
                "spans of these tokens"
            )

        tokens: list[int] = []
        for start, end in spans:
            tokens += range(start, end)
        lengths = tuple(end - start for start, end in spans)

        maps = self.layout.merge(self.maps[tokens], lengths, merge)
        chances = None if self.chances is None else self.chances[tokens]
        states = self.states[:, tokens]
        return PhraseFeatures(maps, states, lengths, self.layout, chances, tuple(wording))


@dataclass(frozen=True)
class Answer:
    """The answer of an LMM.

    text: of all tokens that have features (the LMM never reads its last token, which usually ends
    the turn). offsets: characters (start, end) of each token. generated: ids, attention and hidden
    states. remembered: number of earlier turns of the conversation in the prompt.
    """

    text: str
    offsets: tuple[tuple[int, int], ...]
    generated: GeneratedAnswer
    remembered: int = 0

    def phrase_features(
        self, spans: Sequence[tuple[int, int]], *, merge: str = "mean"
    ) -> PhraseFeatures:
        """Return the features of phrases.

        Args:
            spans: characters (start, end) of each phrase in `text`.
            merge: how the tokens of a phrase become one map, as in `FrozenLMM.forward`.

        Raises:
            ValueError: a span is empty or reaches beyond the text.
        """
        tokens = phrase_token_spans(self.offsets, spans, straddling="drop")
        wording = [self.text[start:end] for start, end in spans]
        return self.generated.phrases(tokens, merge=merge, wording=wording)

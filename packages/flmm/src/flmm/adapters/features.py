"""What a frozen LMM is given and gives back."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.attention.capture import merge_tokens
from flmm.text.tokens import TokenizedText


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
    """What a frozen LMM tells about the phrases of one image: all that training the heads needs.

    maps: (N, C, h, w) float32 attention maps. states: (L, T, D) hidden states in the model's dtype.
    lengths: tokens of each phrase, their sum is T. layout: how maps lie on the image.
    """

    maps: Tensor
    states: Tensor
    lengths: tuple[int, ...]
    layout: ImageLayout


@dataclass(frozen=True)
class Generated:
    """An answer and what its tokens attended to.

    ids: (A,) generated tokens. maps: (A - 1, C, t) attention of all but the last one, which is said
    but never read. states: (L, A - 1, D). layout: how the t image tokens lie on the image.
    """

    ids: Tensor
    maps: Tensor
    states: Tensor
    layout: ImageLayout

    def phrases(self, spans: Sequence[tuple[int, int]], *, merge: str = "mean") -> PhraseFeatures:
        """Features of token spans (start, end exclusive) of the answer; `merge` as in
        `FrozenLMM.forward`.

        Raises:
            ValueError: a span is empty or reaches beyond the tokens that have features.
        """
        known = self.maps.shape[0]
        if wrong := [span for span in spans if not 0 <= span[0] < span[1] <= known]:
            raise ValueError(
                f"token spans {wrong} are not in the answer's {known} tokens with features: pass "
                "others"
            )
        lengths = tuple(b - a for a, b in spans)
        tokens = [token for a, b in spans for token in range(a, b)]
        rows = self.maps[tokens].transpose(0, 1)  # (C, T, t)
        maps = merge_tokens(rows, lengths, merge).transpose(0, 1)  # (N, C, t)
        return PhraseFeatures(
            self.layout.arrange(maps), self.states[:, tokens], lengths, self.layout
        )

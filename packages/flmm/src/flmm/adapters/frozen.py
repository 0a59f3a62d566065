"""A frozen multimodal LLM that is asked for phrase features, not for text.

What differs between LMMs (pixels, where image tokens are, how they lie on the image, extra inputs)
is a `Family`, one small file each; running the model, padding batches and listening to its
attention is here, once.

Letters: B images, N phrases of an image, T tokens of its phrases, S sequence, L layers, H heads, D
hidden width, C = L * H * grids attention maps of a phrase, h w their grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flmm.adapters.family import Family
from flmm.adapters.features import Generated, PhraseFeatures, Sample
from flmm.adapters.frames import PreparedImage
from flmm.attention.capture import Capture, PhraseRows, TokenRows
from flmm.attention.rows import use_rows_attention
from flmm.text.tokens import TokenizedText


class FrozenLMM(nn.Module):
    """A transformers image-text model, frozen and in evaluation mode, whose attention can be
    listened to.

    Args:
        model: its `model` is run without the vocabulary layer, `model.language_model` is listened
            to.
        family: what is special about it.
        tokenizer: for texts; not needed for samples that are tokenized already.

    Raises:
        ValueError: the language model's attention cannot be captured, or transformers is too old.
    """

    def __init__(self, model: nn.Module, family: Family, tokenizer: Any = None):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.family = family
        self.tokenizer = tokenizer
        use_rows_attention(self.language_model)
        self.eval()

    @property
    def language_model(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def layers(self) -> int:
        return len(self.language_model.layers)

    @property
    def map_channels(self) -> int:
        """C: attention maps of a phrase."""
        return self.layers * self.language_model.config.num_attention_heads * self.family.grids

    @property
    def hidden_size(self) -> int:
        return self.language_model.config.hidden_size

    @property
    def context(self) -> int | None:
        """Tokens of prompt, images and answer that it can hold; None where its configuration does
        not say."""
        return getattr(self.language_model.config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def train(self, mode: bool = True) -> "FrozenLMM":
        """Stays in evaluation mode: a frozen model has no other."""
        return super().train(False)

    def forward(self, samples: Sequence[Sample], *, merge: str = "mean") -> list[PhraseFeatures]:
        """Features of the phrases of several images, from one batch.

        Args:
            samples: images with their texts; texts are padded on the right.
            merge: of a phrase's tokens, "mean" or "max".

        Raises:
            ValueError: a text without its image token or longer than the model's context, or an
                unknown merge.
        """
        layouts = [self.family.layout(sample.image) for sample in samples]
        texts = [self._expanded(s.text, layout.tokens) for s, layout in zip(samples, layouts)]
        phrases = [
            [(t.phrase_ids == k).nonzero().flatten() for k in range(t.phrases)] for t in texts
        ]
        ids, mask = pad_right([t.input_ids for t in texts])
        rows = [PhraseRows(p, merge) for p in phrases]
        columns = [self._columns(t.input_ids) for t in texts]
        inputs = self._inputs([s.image for s in samples], ids)
        with torch.no_grad(), Capture(self.language_model, rows=rows, columns=columns) as capture:
            self.model.model(**inputs, attention_mask=_on(mask, self.device), use_cache=False)
        return [
            PhraseFeatures(
                layout.arrange(capture.maps(i)), capture.states(i), tuple(rows[i].lengths), layout
            )
            for i, layout in enumerate(layouts)
        ]

    def generate(
        self,
        images: Sequence[PreparedImage],
        prompt_ids: Tensor,
        *,
        max_new_tokens: int,
        stop: Callable[[Tensor], bool] | None = None,
    ) -> Generated:
        """Greedy answer to a prompt about one or more images; attention is that to the first image.

        Args:
            images: in the order of their tokens.
            prompt_ids: (S,) with one image token for each image, or one for each of their tokens.
            stop: asked after every token with all generated ids (A,); True ends the answer there.

        Raises:
            ValueError: another number of image tokens than images, or no room in the context.
        """
        from transformers import GenerationConfig  # seconds to import

        layouts = [self.family.layout(image) for image in images]
        text = TokenizedText(prompt_ids, torch.full_like(prompt_ids, -1), len(prompt_ids))
        text = self._expanded(text, *(layout.tokens for layout in layouts), room=max_new_tokens)
        length = len(text.input_ids)
        columns = self._columns(text.input_ids)[: layouts[0].tokens]
        inputs = self._inputs(images, text.input_ids[None])
        own = self.model.generation_config
        ends = (
            own.eos_token_id
            if own.eos_token_id is not None
            else self.language_model.config.eos_token_id
        )
        pad = (
            own.pad_token_id
            if own.pad_token_id is not None
            else (ends[0] if isinstance(ends, list) else ends)
        )
        greedy = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=pad,
            use_cache=True,
        )
        with (
            torch.no_grad(),
            Capture(self.language_model, rows=[TokenRows(length)], columns=[columns]) as capture,
        ):
            mask = torch.ones_like(inputs["input_ids"])
            ids = self.model.generate(
                **inputs,
                attention_mask=mask,
                generation_config=greedy,
                stopping_criteria=_stopping(stop, length),
            )
        return Generated(ids[0, length:].cpu(), capture.maps(0), capture.states(0), layouts[0])

    def _inputs(self, images: Sequence[PreparedImage], ids: Tensor) -> dict[str, Tensor]:
        inputs = {"input_ids": ids, **self.family.model_inputs(images, ids)}
        return {name: _on(value, self.device, self.model.dtype) for name, value in inputs.items()}

    def _columns(self, ids: Tensor) -> Tensor:
        return (ids == self.family.image_token_id).nonzero().flatten()

    def _expanded(self, text: TokenizedText, *counts: int, room: int = 0) -> TokenizedText:
        """The text with as many image tokens as the images have."""
        found = len(self._columns(text.input_ids))
        if found != sum(counts):
            text = text.expand(self.family.image_token_id, counts)
        limit = self.context
        if limit is not None and len(text.input_ids) + room > limit:
            cut = text.phrase_ids[max(limit - room, 0) :]
            whole = min(
                [*cut[cut >= 0].tolist(), text.phrases]
            )  # phrases before the first one that is cut
            fit = (
                f" (the first {whole} of its {text.phrases} phrases would)" if text.phrases else ""
            )
            raise ValueError(
                f"{len(text.input_ids)} tokens of prompt, image and "
                f"answer{f' and {room} to generate' * bool(room)} "
                f"do not fit the context of {limit}{fit}; shorten the text by "
                f"{len(text.input_ids) + room - limit} "
                "tokens, or split its phrases over several samples"
            )
        return text


def _stopping(stop: Callable[[Tensor], bool] | None, prompt_tokens: int) -> list:
    """transformers' stopping criteria for a batch of one."""
    if stop is None:
        return []
    return [
        lambda ids, scores, **_: torch.tensor([stop(ids[0, prompt_tokens:])], device=ids.device)
    ]


def pad_right(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Token ids (S_i,) -> (B, S) filled with 0, and the mask (B, S) of real tokens, None where
    nothing is padded."""
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    lengths = torch.tensor([len(s) for s in sequences])
    if (lengths == ids.shape[1]).all():
        return ids, None
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def _on(
    value: Tensor | None, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor | None:
    if value is None:
        return None
    return value.to(device, dtype if dtype is not None and value.is_floating_point() else None)

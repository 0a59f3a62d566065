"""A frozen multimodal LLM as a source of features of phrases.

A `Family`, one small file each, has the parts that differ between LMMs: pixels, positions of image
tokens, their layout on the image, extra inputs. Running the model, padding batches and capturing
its attention is here, once.

Letters: B images, N phrases of an image, T tokens of its phrases, S sequence, L layers, H heads, D
hidden width, C = L * H * grids attention maps of a phrase, h w their grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flmm.adapters.chances import listen_to_states, token_chances
from flmm.adapters.family import Family, TokenizerAdjuster
from flmm.adapters.features import GeneratedAnswer, PhraseFeatures, Sample
from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.adapters.padding import pad_left, pad_right, without_end
from flmm.attention.capture import Capture, PhraseRows, TokenRows, UnmergedRows
from flmm.attention.rows import use_rows_attention
from flmm.text.tokens import NO_PHRASE, TokenizedText
from flmm.transformers_compat import LmmParts, lmm_parts


class FrozenLMM(nn.Module):
    """A transformers image-text model, frozen and in evaluation mode, whose attention is captured.

    Args:
        model: its `model` runs without the vocabulary layer; `model.language_model` is captured.
        family: the parts that this kind of LMM does differently.
        tokenizer: for texts; not needed for samples that are tokenized already.

    Raises:
        ValueError: it is no image-text model, its attention cannot be captured, or transformers is
            too old.
    """

    def __init__(self, model: nn.Module, family: Family, tokenizer: Any = None):
        super().__init__()
        self._parts: LmmParts = lmm_parts(model)  # plain references: `model` owns the weights
        self.model = model.requires_grad_(False)
        self.family = family
        self.tokenizer = tokenizer
        use_rows_attention(self.language_model)
        if tokenizer is not None and isinstance(family, TokenizerAdjuster):
            family.adjust_tokenizer(tokenizer)
        self.eval()

    @property
    def language_model(self) -> nn.Module:
        """The decoder, whose attention is captured."""
        return self._parts.language_model

    @property
    def config(self) -> Any:
        """Configuration of the whole model, of transformers."""
        return self._parts.whole.config

    @property
    def language_config(self) -> Any:
        """Configuration of the language model, of transformers."""
        return self._parts.decoder.config

    @property
    def layers(self) -> int:
        """L: layers of the language model with a softmax attention; all but in hybrid models."""
        return len(self._parts.decoder.layers)

    @property
    def map_channels(self) -> int:
        """C: attention maps of a phrase."""
        heads: int = self.language_config.num_attention_heads
        return self.layers * heads * self.family.grids

    @property
    def hidden_size(self) -> int:
        """D: width of the hidden states."""
        width: int = self.language_config.hidden_size
        return width

    @property
    def context(self) -> int | None:
        """Largest number of tokens of prompt, images and answer; None if the configuration has
        none."""
        return getattr(self.language_config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._parts.whole.device

    def train(self, mode: bool = True) -> "FrozenLMM":
        """Stay in evaluation mode: a frozen model has no other."""
        return super().train(False)

    def forward(self, samples: Sequence[Sample], *, merge: str = "mean") -> list[PhraseFeatures]:
        """Compute features of the phrases of several images, from one batch.

        Args:
            samples: images with their texts; texts are padded on the right.
            merge: how the tokens of a phrase become one map, "mean" or "max".

        Raises:
            ValueError: a text without its image token or longer than the model's context, or an
                unknown merge.
        """
        layouts = [self.family.layout(sample.image) for sample in samples]
        texts = []
        for sample, layout in zip(samples, layouts):
            texts.append(self._expand_image_tokens(sample.text, layout))

        rows = []
        for text, layout in zip(texts, layouts):
            phrases = text.phrase_positions()
            # A mean is the same before and after maps are enlarged, and takes less memory before.
            late = layout.merge_last and merge == "max"
            rows.append(UnmergedRows(phrases) if late else PhraseRows(phrases, merge))
        columns = [self._columns(text.input_ids) for text in texts]
        ids, mask = pad_right([text.input_ids for text in texts])
        prompts = [text.prompt_tokens for text in texts]
        inputs = self._inputs([sample.image for sample in samples], ids, prompts)
        if mask is not None:
            mask = mask.to(self.device)
        before = [row.positions - 1 for row in rows]
        with (
            torch.no_grad(),
            Capture(self.language_model, rows=rows, columns=columns) as capture,
            listen_to_states(self._parts.decoder.norm, before) as states,
        ):
            self._parts.core(**inputs, attention_mask=mask, use_cache=False)

        read = [text.input_ids[row.positions] for text, row in zip(texts, rows)]
        chances = self._chances(torch.cat(states), torch.cat(read))
        of_texts = chances.split([len(part) for part in read]) if chances is not None else None
        features = []
        for item, layout in enumerate(layouts):
            lengths, maps = tuple(rows[item].lengths), capture.maps(item)
            if isinstance(rows[item], UnmergedRows):
                maps = layout.merge(maps, lengths, merge)
            else:
                maps = layout.arrange(maps)
            own = None if of_texts is None else of_texts[item]
            wording = texts[item].wording
            states_of = capture.states(item)
            features.append(PhraseFeatures(maps, states_of, lengths, layout, own, wording))
        return features

    def generate(
        self,
        images: Sequence[PreparedImage],
        prompt_ids: Tensor,
        *,
        max_new_tokens: int,
        stop: Callable[[Tensor], bool] | None = None,
    ) -> GeneratedAnswer:
        """Generate a greedy answer to a prompt about images; its attention is to the first image.

        Args:
            images: in the order of their tokens.
            prompt_ids: (S,) with one image token for each image, or one for each of their tokens.
            stop: called after every token with all generated ids (A,); True ends the answer there.

        Raises:
            ValueError: another number of image tokens than images, or no room in the context.
        """
        layouts = [self.family.layout(image) for image in images]
        prompt = TokenizedText(prompt_ids, torch.full_like(prompt_ids, NO_PHRASE), len(prompt_ids))
        prompt = self._expand_image_tokens(prompt, *layouts, room=max_new_tokens)
        length = len(prompt.input_ids)

        columns = self._columns(prompt.input_ids)[: layouts[0].tokens]
        inputs = self._inputs(images, prompt.input_ids[None], [length])
        rows = [TokenRows(length)]
        with (
            torch.no_grad(),
            Capture(self.language_model, rows=rows, columns=[columns]) as capture,
            listen_to_states(self._parts.decoder.norm) as written,
        ):
            ids = self._parts.whole.generate(
                **inputs,
                attention_mask=torch.ones_like(inputs["input_ids"]),
                generation_config=self._greedy(max_new_tokens),
                stopping_criteria=_stopping(stop, length),
            )
        answer = ids[0, length:].cpu()
        maps = capture.maps(0)
        chances = self._chances(torch.cat(written)[: len(maps)], answer[: len(maps)])
        return GeneratedAnswer(answer, maps, capture.states(0), layouts[0], chances)

    def answer_all(
        self,
        images: Sequence[PreparedImage],
        prompts: Sequence[Tensor],
        *,
        max_new_tokens: int,
        stop: Callable[[Tensor], bool] | None = None,
    ) -> list[Tensor]:
        """Generate a greedy answer (A_i,) to each prompt (S_i,) about its image, as one batch.

        Prompts are padded on the left. Nothing is captured.

        Args:
            images: one for each prompt.
            prompts: with one image token each, or one for each of the image's tokens.
            max_new_tokens: longest answer; where the context has less room, what it leaves.
            stop: called after every token with the generated ids of one answer; True ends it.

        Raises:
            ValueError: no image token, or no room in the context.
        """
        texts = []
        for image, ids in zip(images, prompts, strict=True):
            text = TokenizedText(ids, torch.full_like(ids, NO_PHRASE), len(ids))
            texts.append(
                self._expand_image_tokens(text, self.family.layout(image), room=1).input_ids
            )
        ids, mask = pad_left(texts)
        length = ids.shape[1]
        if self.context is not None:
            max_new_tokens = min(max_new_tokens, self.context - length)

        inputs = self._inputs(images, ids, [length] * len(ids))
        options = self._greedy(max_new_tokens)
        with torch.no_grad():
            generated = self._parts.whole.generate(
                **inputs,
                attention_mask=mask.to(self.device),
                generation_config=options,
                stopping_criteria=_stopping(stop, length),
            )
        return [without_end(row, options.pad_token_id) for row in generated[:, length:].cpu()]

    def complete(self, prompt_ids: Tensor, *, max_new_tokens: int) -> Tensor:
        """Generate a greedy answer (A,) to a prompt (S,) without images; nothing is captured.

        Raises:
            ValueError: no room in the context.
        """
        length = len(prompt_ids)
        prompt = TokenizedText(prompt_ids, torch.full_like(prompt_ids, NO_PHRASE), length)
        prompt = self._expand_image_tokens(prompt, room=max_new_tokens)
        ids = prompt.input_ids[None].to(self.device)
        with torch.no_grad():
            generated = self._parts.whole.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._greedy(max_new_tokens),
            )
        return generated[0, length:].cpu()

    def _greedy(self, max_new_tokens: int) -> Any:
        """Make the generation configuration of a greedy answer, with the model's own end tokens."""
        from transformers import GenerationConfig  # seconds to import

        own = self._parts.whole.generation_config
        ends = own.eos_token_id
        if ends is None:
            ends = self.language_config.eos_token_id
        pad = own.pad_token_id
        if pad is None:
            pad = ends[0] if isinstance(ends, list) else ends
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=pad,
            use_cache=True,
        )

    def _inputs(
        self, images: Sequence[PreparedImage], ids: Tensor, prompts: Sequence[int]
    ) -> dict[str, Tensor]:
        """Make the model's arguments; the first prompts[i] of the ids of item i are its prompt."""
        whole = self._parts.whole
        inputs = {"input_ids": ids, **self.family.model_inputs(images, ids)}
        if getattr(self.family, "prompt_sees_itself", False):
            places = torch.arange(ids.shape[1])
            inputs["token_type_ids"] = (places >= torch.tensor(prompts)[:, None]).long()
        moved = {}
        for name, value in inputs.items():
            dtype = whole.dtype if value.is_floating_point() else None
            moved[name] = value.to(whole.device, dtype)
        return moved

    def _chances(self, states: Tensor, ids: Tensor) -> Tensor | None:
        """Return `token_chances` of tokens, from the states (T, D) before them; None where the
        model does not name its vocabulary layer."""
        vocabulary = self._parts.vocabulary
        if vocabulary is None:
            return None
        cap = getattr(self.language_config, "final_logit_softcapping", None)
        return token_chances(vocabulary, states, ids, cap=cap)

    def _columns(self, ids: Tensor) -> Tensor:
        return (ids == self.family.image_token_id).nonzero().flatten()

    def _expand_image_tokens(
        self, text: TokenizedText, *layouts: ImageLayout, room: int = 0
    ) -> TokenizedText:
        """Return the text with one image token for each token of the images."""
        if len(self._columns(text.input_ids)) != sum(layout.tokens for layout in layouts):
            token = self.family.image_token_id
            images = [layout.ids(token, self.tokenizer) for layout in layouts]
            text = text.expand(token, images)
        excess = 0 if self.context is None else len(text.input_ids) + room - self.context
        if excess > 0:
            raise ValueError(_does_not_fit(text, room, excess))
        return text


def _does_not_fit(text: TokenizedText, room: int, excess: int) -> str:
    """Describe by how many tokens a text is too long, and how many of its phrases would fit."""
    total = len(text.input_ids)
    generated = f" and {room} to generate" if room else ""
    fit = ""
    if text.phrases:
        cut = text.phrase_ids[max(total - excess, 0) :]
        whole = min([*cut[cut >= 0].tolist(), text.phrases])  # phrases before the first that is cut
        fit = f" (the first {whole} of its {text.phrases} phrases would)"
    return (
        f"{total} tokens of prompt, image and answer{generated} do not fit the context of "
        f"{total + room - excess}{fit}; shorten the text by {excess} tokens, or split its phrases "
        "over several samples"
    )


def _stopping(stop: Callable[[Tensor], bool] | None, prompt_tokens: int) -> list:
    """Make transformers' stopping criteria: each answer of a batch ends by itself."""
    if stop is None:
        return []

    def ended(ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.tensor([stop(row[prompt_tokens:]) for row in ids], device=ids.device)

    return [ended]

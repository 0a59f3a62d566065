"""A language model of transformers and a vision tower that its authors join to an LMM.

HPT and Mini-Gemini have no class in transformers. Their language models have: this module puts the
features of images in place of image tokens, and runs them.

Letters: B images, t tokens of an image, S sequence, D hidden width of the language model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class JoinedConfig:
    """The configuration of a joined LMM, with the names of transformers' configurations.

    model_type: of the family. text_config: of the language model, from transformers. vision_config:
    of the vision part. image_token_id: stands for an image, may lie beyond the vocabulary.
    name_or_path: where it was read.
    """

    model_type: str
    text_config: Any
    vision_config: Any
    image_token_id: int
    name_or_path: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything that features of the LMM depend on, except weights.

        The path is not included, because a folder can move.
        """
        parts = {}
        for name in ("text_config", "vision_config"):
            part = getattr(self, name)
            parts[name] = part.to_dict() if hasattr(part, "to_dict") else vars(part)
        return {"model_type": self.model_type, "image_token_id": self.image_token_id, **parts}


class JoinedCore(nn.Module):
    """The joined LMM without its vocabulary layer.

    Args:
        causal: a causal language model of transformers, whose `model` is the decoder.
        vision: pixels (B, ...) to features (B, t, D), as they join the word embeddings.
        image_token_id: the id whose places the features take.
    """

    def __init__(self, causal: Any, vision: nn.Module, image_token_id: int):
        super().__init__()
        self.causal = causal
        self.vision = vision
        self.image_token_id = image_token_id

    @property
    def language_model(self) -> nn.Module:
        """The decoder."""
        decoder: nn.Module = self.causal.model
        return decoder

    def words(self, input_ids: Tensor) -> Tensor:
        """Return ids (B, S) that the vocabulary has: 0 in place of image tokens."""
        return input_ids.masked_fill(input_ids == self.image_token_id, 0)

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """Return the inputs (B, S, D) of the first layer: words, and images at their tokens.

        Raises:
            ValueError: another number of image tokens than features.
        """
        embeddings: Tensor = self.causal.get_input_embeddings()(self.words(input_ids))
        if pixel_values is None:
            return embeddings

        features = self.vision(pixel_values).flatten(0, 1).to(embeddings.dtype)  # (B * t, D)
        places = input_ids == self.image_token_id
        if int(places.sum()) != len(features):
            raise ValueError(
                f"{int(places.sum())} image tokens for {len(features)} features of images: put one "
                "image token for each into the text"
            )
        return embeddings.masked_scatter(places[..., None], features)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the decoder, which gets the options, as the models of transformers do."""
        return self.causal.model(
            inputs_embeds=self.embed(input_ids, pixel_values),
            attention_mask=attention_mask,
            **options,
        )


class JoinedLMM(nn.Module):
    """A joined LMM with the interface of transformers' image-text models that flmm uses."""

    def __init__(self, causal: Any, vision: nn.Module, config: JoinedConfig):
        super().__init__()
        self.model = JoinedCore(causal, vision, config.image_token_id)
        self.config = config

    @property
    def generation_config(self) -> Any:
        """How the language model generates by default."""
        return self.model.causal.generation_config

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        device: torch.device = self.model.causal.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        dtype: torch.dtype = self.model.causal.dtype
        return dtype

    def generate(
        self, input_ids: Tensor, pixel_values: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Generate after a prompt (B, S); returns prompt and answer, with 0 for image tokens."""
        answer: Tensor = self.model.causal.generate(
            input_ids=self.model.words(input_ids),
            inputs_embeds=self.model.embed(input_ids, pixel_values),
            **options,
        )
        return answer


def add_image_token(tokenizer: Any, token: str = "<image>") -> int:
    """Make a tokenizer know the token that stands for an image, and return its id.

    The vocabulary of the weights does not grow: `JoinedCore` never looks the token up.
    """
    tokenizer.add_tokens([token], special_tokens=True)
    token_id: int = tokenizer.convert_tokens_to_ids(token)
    return token_id

"""The interfaces of models for evaluators, and the encoding of a batch of images."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from clim_models import Request
from torch import Tensor, nn


class ImageModel(Protocol):
    """The interface of a RegionModel for image evaluators."""

    training: bool

    def normalize_pixels(self, pixels: Tensor) -> Tensor: ...

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor: ...

    def train(self, mode: bool = True) -> object: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class TextImageModel(ImageModel, Protocol):
    """The interface of a RegionModel for image-text evaluators."""

    @property
    def tokenizer(self) -> Callable[[list[str]], Tensor]: ...

    def encode_text(self, token_ids: Tensor, normalize: bool = True) -> Tensor: ...


class RegionEncoder(ImageModel, Protocol):
    """The interface of a RegionModel for region evaluators."""

    def encode(
        self,
        images: Tensor,
        requests: Sequence[Request],
        *,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
    ) -> dict[Request, Tensor]: ...


def device_of(model: ImageModel) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device


def encode_pixels(model: ImageModel, images: Sequence[Tensor]) -> Tensor:
    """Encode uint8 (3, H, W) images of one size: (B, C) float32 unit rows on the model's device."""
    return model.encode_image(model.normalize_pixels(torch.stack(list(images)))).float()

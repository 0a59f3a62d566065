"""From a sample of clim-data (image, text, masks) to the inputs of the frozen LMM, SAM and the
losses.

Letters: N phrases of an image, h w size of the image in the LMM's frame.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from clim_data import BrokenSample, GroundingSample
from PIL import Image
from torch import Tensor

from flmm.adapters.family import Family
from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.frames import PreparedImage
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import tokenizer_of
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.square import ResizedImage, Square
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_sample


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of one image from the frozen models: phrases by the LMM, image by SAM."""

    phrases: PhraseFeatures
    embedding: ImageEmbedding


@dataclass(frozen=True)
class GroundingItem:
    """One image with its phrases, ready for `GroundingTask`.

    key: names it. masks: bool (N, h, w), the true masks at the size the image has in the LMM's
    frame. text: stamp of the text and its phrases.
    sample, image: for the LMM and for SAM; None where `kept` has their features.
    """

    key: str
    masks: Tensor
    text: str = ""
    sample: Sample | None = None
    image: ResizedImage | None = None
    kept: FrozenFeatures | None = None


@dataclass(frozen=True)
class GroundingBatch:
    """Items of one step of a rank. It can be empty, where nothing of a step could be read."""

    items: tuple[GroundingItem, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def keys(self) -> list[str]:
        return [item.key for item in self.items]

    @property
    def phrases(self) -> int:
        """Number of phrases of all items."""
        return sum(len(item.masks) for item in self.items)

    def to(self, device: torch.device | str) -> "GroundingBatch":
        """Return it with the true masks on `device`; the models copy the rest to their own
        devices."""
        return GroundingBatch(
            tuple(replace(i, masks=i.masks.to(device, non_blocking=True)) for i in self.items)
        )


class SampleMaker:
    """Makes an LMM's samples of clim-data's. It holds no model, so that loading processes can have
    it.

    Args:
        lmm: gives the family, the tokenizer and the length of its context.
        request: the question before the text to ground.

    Raises ValueError when the LMM has no tokenizer.
    """

    def __init__(self, lmm: FrozenLMM, *, request: str = DESCRIBE):
        self.family: Family = lmm.family
        self.tokenizer: Any = tokenizer_of(lmm)
        self.limit: int | None = getattr(lmm.language_model.config, "max_position_embeddings", None)
        self.prompt = self.family.style.prompt(request)

    def __call__(self, sample: GroundingSample, image: Image.Image) -> Sample:
        """Pixels and tokens, with as many image tokens as the image needs.

        Raises:
            BrokenSample: there is no phrase, one without a token, or more text than the context has
                room for.
        """
        if not sample.phrases:
            raise BrokenSample("no phrase", sample.key)
        prepared = prepare_image(self.family, image, sample.key)
        try:
            text = tokenize_sample(self.tokenizer, self.prompt, sample, spaced=self.family.spaced)
            token = self.family.image_token_id
            text = text.expand(token, [self.family.layout(prepared).ids(token, self.tokenizer)])
        except ValueError as fault:
            raise BrokenSample("unusable text", sample.key, str(fault)) from None
        if self.limit is not None and len(text.input_ids) > self.limit:
            detail = f"{len(text.input_ids)} tokens with the image's, the context has {self.limit}"
            raise BrokenSample("longer than the context", sample.key, detail)
        return Sample(prepared, text)


def prepare_image(family: Family, image: Image.Image, name: str = "the image") -> PreparedImage:
    """Prepare an image for an LMM.

    Raises:
        BrokenSample: its shape is one that the LMM cannot take, such as 600 x 1.
    """
    try:
        prepared = family.prepare(image)
        grids = family.layout(prepared).grids
        # LLaVA-NeXT cuts padding off by whole tokens, and may leave none of a thin image.
        if any(0 in grid.shape for grid in grids):
            raise ValueError("it is thinner than one token")
    except (ValueError, RuntimeError, ZeroDivisionError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        detail = f"{image.width} x {image.height} pixels ({reason}); crop or resize it"
        raise BrokenSample("unusable shape", name, detail) from fault
    return prepared


def training_item(
    maker: SampleMaker, sample: GroundingSample, *, key: str, square: Square
) -> GroundingItem:
    """Decode and prepare a sample for training; `square` is `Refiner.square`.

    Raises:
        BrokenSample: the image or a mask cannot be read, or as `SampleMaker`.
    """
    image, masks = sample.load()
    prepared = maker(sample, image)
    small = prepared.image.frame.resize_masks(torch.from_numpy(masks))  # (N, h, w)
    return GroundingItem(key, small, text_stamp(sample), prepared, ResizedImage.of(image, square))


def text_stamp(sample: GroundingSample) -> str:
    """Return 8 hex digits that change with the kind of text, its words and its phrases."""
    return f"{zlib.crc32(repr((sample.kind, sample.segments)).encode()):08x}"


def frozen_inputs(items: Sequence[GroundingItem]) -> tuple[list[Sample], list[ResizedImage]]:
    """Split items that have no cached features into the inputs of the LMM and of SAM."""
    samples, images = [], []
    for item in items:
        if item.sample is None or item.image is None:
            raise ValueError(f"{item.key} has neither inputs nor cached features")
        samples.append(item.sample)
        images.append(item.image)
    return samples, images

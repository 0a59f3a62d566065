"""The differences between the SAMs of transformers, by the classes of their parts.

| | SAM, SAM-HQ | SAM 2, 2.1, EdgeTAM, SAM 3's tracker |
|---|---|---|
| image | longer edge of the square | squashed to the square |
| details of an embedding | none; SAM-HQ: an early layer | two finer maps |
| tokens before the prompts | IoU, masks; SAM-HQ: one more mask | presence, IoU, masks |
| predicted IoU | a regression | a probability |

Two things follow the papers' models where transformers 5.23 does not: SAM-HQ's pixels are made of
what the two-way transformer wrote; and where SAM 3 has a fourth, coarser map that nothing reads,
the embedding of "no memory" belongs to the third.

Sources: SAM arXiv 2304.02643, SAM-HQ 2306.01567, SAM 2 2408.00714, EdgeTAM 2501.07256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from flmm.refiners.sam.encoder import SamImageEncoder
from flmm.refiners.square import Square

# Means and standard deviations of pixels in 0..255 that the image encoders were trained with.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


@dataclass(frozen=True)
class SamKind:
    """One kind of SAM.

    name: its `model_type`. squashed: how images fill the square, see `Square`. pixels: mean and
    standard deviation. finer: whether its embeddings have two finer maps. hq: whether its
    embeddings have an early layer, and its decoder a token for finer masks.
    """

    name: str
    squashed: bool = False
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    finer: bool = False
    hq: bool = False


KINDS = {
    "SamModel": SamKind("sam"),
    "SamHQModel": SamKind("sam_hq", hq=True),
    "Sam2Model": SamKind("sam2", squashed=True, finer=True),
    "EdgeTamModel": SamKind("edgetam", squashed=True, finer=True),
    "Sam3TrackerModel": SamKind("sam3_tracker", squashed=True, pixels=HALF, finer=True),
}
"""Class of transformers -> kind."""


def kind_of(sam: nn.Module) -> SamKind:
    """Return the kind of a model.

    Raises:
        ValueError: it is none of those that refine masks.
    """
    kind = KINDS.get(type(sam).__name__)
    if kind is None:
        raise ValueError(
            f"{type(sam).__name__} is no SAM that takes masks and boxes: pass one of "
            f"{', '.join(KINDS)}"
        )
    return kind


def take_encoder(sam: Any, kind: SamKind, square: Square) -> SamImageEncoder:
    """Take the part of a model that looks at images.

    The finer maps of SAM 2 pass through two convolutions of its mask decoder. They run once per
    image, so the encoder takes them away from the decoder, and they stay frozen.
    """
    if kind.hq:
        return EarlyLayerEncoder(sam.vision_encoder, square, kind.pixels)
    if not kind.finer:
        return SamImageEncoder(sam.vision_encoder, square, kind.pixels)
    encoder = FinerMapsEncoder(sam, square, kind.pixels)
    del sam.mask_decoder.conv_s0, sam.mask_decoder.conv_s1
    return encoder


@dataclass(frozen=True)
class SamParts:
    """The parts of a SAM that a refiner is made of.

    positions: of the grid; None where they are those of the prompt encoder.
    """

    kind: SamKind
    encoder: SamImageEncoder | None
    prompt_encoder: Any
    mask_decoder: Any
    positions: nn.Module | None = None

    @classmethod
    def of(cls, sam: Any) -> Self:
        """Take a model of transformers apart."""
        kind = kind_of(sam)
        square = Square(sam.prompt_encoder.input_image_size, squashed=kind.squashed)
        encoder = take_encoder(sam, kind, square)
        positions = sam.shared_image_embedding if kind.finer else None
        return cls(kind, encoder, sam.prompt_encoder, sam.mask_decoder, positions)


class EarlyLayerEncoder(SamImageEncoder):
    """SAM-HQ's. Details: the first layer with global attention, (width, h, w)."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode normalised pixels (B, 3, edge, edge) -> features (B, D, h, w), and details."""
        found = self.vision(pixels)
        early = found.intermediate_embeddings[0].permute(0, 3, 1, 2)
        return found.last_hidden_state, (early.contiguous(),)


class FinerMapsEncoder(SamImageEncoder):
    """SAM 2's and its kin's. Details: maps (D / 8, 4h, 4w) and (D / 4, 2h, 2w)."""

    def __init__(self, sam: Any, square: Square, pixels: tuple[tuple[float, ...], ...]):
        super().__init__(sam.vision_encoder, square, pixels)
        self.conv_s0 = sam.mask_decoder.conv_s0
        self.conv_s1 = sam.mask_decoder.conv_s1
        self.no_memory = sam.no_memory_embedding

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode normalised pixels (B, 3, edge, edge) -> features (B, D, h, w), and details."""
        quarter, half, whole = self.vision(pixels, return_dict=True).fpn_hidden_states[:3]
        # A single picture is a film without earlier frames, which has an embedding of its own.
        features = whole + self.no_memory.reshape(1, -1, 1, 1)
        return features, (self.conv_s0(quarter), self.conv_s1(half))


def details_of_phrases(
    decoder: Any, kind: SamKind, features: Tensor, details: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Bring the details of B images into the form that masks are read with.

    Args:
        features: (B, D, h, w). details: of the embeddings, stacked.

    Returns:
        For SAM 2: (B, P, 4, D / 4) and (B, P, 16, D / 8), the pixels of each position of the grid.
        For SAM-HQ: (B, D / 8, 4h, 4w), to be added to pixels before finer masks are read.
    """
    if kind.hq:
        (early,) = details
        fine = decoder.encoder_conv2(
            decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(features)))
        )
        compressed = decoder.compress_vit_conv2(
            decoder.activation(decoder.compress_vit_norm(decoder.compress_vit_conv1(early)))
        )
        return (fine + compressed,)
    if kind.finer:
        quarter, half = details
        h, w = features.shape[-2:]
        # (B, C, h, y, w, x) -> (B, h, w, y, x, C)
        half = half.unflatten(3, (w, 2)).unflatten(2, (h, 2)).permute(0, 2, 4, 3, 5, 1)
        # (B, C, h, y, y', w, x, x') -> (B, h, w, y, x, y', x', C)
        quarter = quarter.unflatten(3, (w, 2, 2)).unflatten(2, (h, 2, 2))
        quarter = quarter.permute(0, 2, 5, 3, 6, 4, 7, 1)
        return half.flatten(3, 4).flatten(1, 2), quarter.flatten(3, 6).flatten(1, 2)
    return ()


def output_tokens(decoder: Any, kind: SamKind) -> tuple[Tensor, int]:
    """Return the learned tokens (O, D) before the prompts, and the number of the IoU's token; the
    masks' tokens follow it."""
    tokens = [decoder.iou_token.weight, decoder.mask_tokens.weight]
    if kind.hq:
        tokens.append(decoder.hq_token.weight)
    if kind.finer:
        return torch.cat([decoder.obj_score_token.weight, *tokens]), 1
    return torch.cat(tokens), 0


def steadier(decoder: Any, masks: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
    """Choose SAM 2's mask: the single one where it is steady, else the best of the three others.

    A mask is steady if few of its pixels change sides when the threshold moves a little.

    Args:
        masks: logits (N, 4, m, m), the single one first. ious: (N, 4).

    Returns:
        (N, 1, m, m), (N, 1).
    """
    delta = decoder.dynamic_multimask_stability_delta
    single = masks[:, 0].flatten(1)
    inner = (single > delta).sum(1).float()
    outer = (single > -delta).sum(1).float()
    share = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
    steady = share >= decoder.dynamic_multimask_stability_thresh
    chosen = torch.where(steady, 0, 1 + ious[:, 1:].argmax(1))
    rows = torch.arange(len(masks), device=masks.device)
    return masks[rows, chosen][:, None], ious[rows, chosen][:, None]

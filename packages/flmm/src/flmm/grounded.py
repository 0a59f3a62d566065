"""A frozen LMM with the heads that turn its attention into masks (F-LMM, arXiv 2406.05821).

Letters: B images, N phrases of an image, T tokens of its phrases, t of one phrase, L layers of the
LMM, D its hidden width, E channels of SAM's prompts, p q size of coarse logits, H W pixels of the
image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_models import UNetHead
from PIL import Image
from torch import Tensor, nn

from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.registry import load_lmm
from flmm.attention.capture import MERGES
from flmm.heads.facts import chosen_merge, frozen_parts, read_facts, trained_parts
from flmm.heads.files import OWN_POSITIONS, mask_head_sizes, open_heads, read_heads, write_heads
from flmm.hub import check_device
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.sam.refiner import SamRefiner


@dataclass(frozen=True)
class Grounding:
    """Masks of the N phrases of an image, as logits: positive is inside.

    coarse: (N, p, q) over the whole image, from the mask head. refined: (N, H, W) float32, from
    SAM.
    """

    coarse: Tensor
    refined: Tensor


class GroundedLMM(nn.Module):
    """Adapter + mask head + SAM: phrases of a text about an image -> their masks.

    What trains: `text_layer_weights`, `text_proj`, `mask_head`, and SAM's prompt encoder and mask
    decoder. The LMM and SAM's image encoder stay frozen and in evaluation mode.

    Args:
        lmm: an LMM of `flmm.load_lmm` or `flmm.build_lmm`.
        mask_head: takes `lmm.map_channels` maps of a phrase.
        sam: refines the coarse masks.
        merge: how attention of the tokens of a phrase becomes one map, "mean" or "max".

    Raises:
        ValueError: a mask head for another LMM, or an unknown merge.
    """

    def __init__(
        self, lmm: FrozenLMM, mask_head: UNetHead, sam: SamRefiner, *, merge: str = "mean"
    ):
        super().__init__()
        if mask_head.in_channels != lmm.map_channels:
            raise ValueError(
                f"the mask head takes {mask_head.in_channels} maps and this LMM has "
                f"{lmm.map_channels}; build "
                f"UNetHead(in_channels={lmm.map_channels})"
            )
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r}; legal values are {', '.join(map(repr, MERGES))}")
        self.lmm, self.mask_head, self.sam, self.merge = lmm, mask_head, sam, merge
        self.own_positions = True
        self.made_for = frozen_parts(lmm, sam)
        self.text_layer_weights = nn.Parameter(torch.ones(lmm.layers))
        self.text_proj = nn.Linear(lmm.hidden_size, sam.prompt_encoder.hidden_size)

    def forward(
        self, samples: Sequence[Sample], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[Grounding]:
        """Masks of the phrases of several images, the LMM's part in one batch.

        Args:
            samples: one for each image, with the phrases marked in its text.
            images: the original images, for SAM, or their embeddings from `sam.embed`.

        Raises:
            ValueError: see `FrozenLMM.forward` and `SamRefiner.forward`.
        """
        return self.ground(self.lmm(samples, merge=self.merge), images)

    def ground(
        self, features: Sequence[PhraseFeatures], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[Grounding]:
        """The part that trains: features of phrases, just made or kept from before -> masks."""
        coarse = [self.coarse_masks(of_image) for of_image in features]
        text = [self.text_embeddings(of_image) for of_image in features]
        refined = self.sam(images, coarse, text)
        if not any(of_image.lengths for of_image in features):
            # SAM then reads no text; on ranks without phrases the backward pass must be that of the
            # others.
            none = sum(self._project(of_image).sum() for of_image in features)
            refined = [masks + none for masks in refined]
        return [Grounding(c, r) for c, r in zip(coarse, refined, strict=True)]

    def coarse_masks(self, features: PhraseFeatures) -> Tensor:
        """(N, p, q) logits over the image: the mask head sees the padding too, and it is cut off
        afterwards."""
        return features.layout.crop(self.mask_head(features.maps))

    def text_embeddings(self, features: PhraseFeatures) -> list[Tensor]:
        """N tensors (t, E): hidden states of each phrase's tokens, summed over layers by learned
        weights, projected."""
        return list(self._project(features).split(list(features.lengths)))

    def _project(self, features: PhraseFeatures) -> Tensor:
        return self.text_proj(
            self.sum_states(features.states).to(self.text_proj.weight.dtype)
        )  # (T, E)

    def sum_states(self, states: Tensor) -> Tensor:
        """(L, T, D) -> (T, D), layers weighted by the softmax of `text_layer_weights`, in the wider
        dtype of both."""
        weights = self.text_layer_weights.softmax(0)
        return (states * weights[:, None, None]).sum(0)

    def direct_parameters(self) -> list[nn.Parameter]:
        """Parameters that are read outside the forward of the module that owns them, for engines
        like ZeRO-3."""
        return [self.text_layer_weights, *self.sam.direct_parameters()]

    def trained_names(self) -> list[str]:
        """Names in the state dict of everything that trains."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def saved_names(self) -> list[str]:
        """What a file of heads holds: everything that trains, and SAM's positional encoding if a
        file brought its own.

        DeepSpeed adds that buffer to released checkpoints, rounded to bfloat16 as their heads were
        trained with it.
        """
        return [*self.trained_names(), *([] if self.own_positions else [OWN_POSITIONS])]

    def facts(self) -> dict[str, Any]:
        """What a file of heads says beside the weights: "merge", "mask_head", "prompts", "lmm",
        "sam_image_encoder"."""
        return {"merge": self.merge, **trained_parts(self.mask_head, self.sam), **self.made_for}

    def load_heads(self, source: str | Path | Mapping[str, Any]) -> None:
        """Everything that was trained, from a file of `save_heads` or a released F-LMM checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: damaged, of another LMM or SAM, or trained with another `merge`; what
                differs is listed.
        """
        name = "the state dict" if isinstance(source, Mapping) else str(source)
        read_heads(self, open_heads(source), name=name, facts=read_facts(source))

    def save_heads(self, path: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> Path:
        """Write what trained with `facts`, and nothing frozen, as safetensors; `state_dict`
        replaces own values."""
        return write_heads(self, path, state_dict)


def load_grounded(
    lmm: str | Path | FrozenLMM,
    *,
    sam: str | Path,
    heads: str | Path | None = None,
    merge: str | None = None,
    dtype: str = "bfloat16",
    device: str = "cpu",
) -> GroundedLMM:
    """A whole grounded LMM from its files, in evaluation mode, built as the heads say they were
    trained.

    Args:
        lmm: folder or hub id, or an LMM that is loaded already.
        sam: file in SAM's original layout, folder or hub id.
        heads: file of `GroundedLMM.save_heads` or a released F-LMM checkpoint; None for new heads
            that are to train.
        merge: "mean" or "max"; None: that of the heads. Released checkpoints do not say; all
            published ones are "mean".
        dtype: of the LMM; the heads and SAM are float32.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one is damaged, they do not belong together, or there is no such device.
    """
    check_device(device)
    name = str(heads)
    tensors, facts = ({}, {}) if heads is None else (open_heads(heads), read_facts(heads))
    merge = chosen_merge(facts, merge, name=name)
    sizes = facts.get("mask_head", {})
    if heads is not None and not sizes:
        sizes = {
            key: value for key, value in mask_head_sizes(tensors).items() if key != "in_channels"
        }
    refiner = SamRefiner.from_pretrained(
        sam, **facts.get("prompts", {})
    )  # before the LMM, which takes longest
    frozen = lmm if isinstance(lmm, FrozenLMM) else load_lmm(lmm, dtype=dtype)
    model = GroundedLMM(frozen, UNetHead(frozen.map_channels, **sizes), refiner, merge=merge)
    if heads is not None:
        read_heads(model, tensors, name=name, facts=facts)
    return model.to(device).eval()

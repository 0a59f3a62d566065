"""The heads that train: they turn features of a frozen LMM into masks (F-LMM, arXiv 2406.05821).

Letters: N phrases of an image, T tokens of its phrases, t of one phrase, L layers of the LMM, D its
hidden width, E channels of SAM's prompts, p q size of coarse logits, H W pixels of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clim_models import UNetHead
from PIL import Image
from torch import Tensor, nn

from flmm.adapters.features import PhraseFeatures
from flmm.adapters.frozen import FrozenLMM
from flmm.attention.capture import MERGES
from flmm.heads.facts import frozen_parts, read_facts, trained_parts
from flmm.heads.files import OWN_POSITIONS, open_heads, read_heads, write_heads
from flmm.heads.presence import (
    PresenceHead,
    evidence_size,
    legal_sizes,
    older_evidence,
    presence_evidence,
)
from flmm.heads.scores import geometric_scores
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import RefinedMasks, Refiner, TrainableRefiner


@dataclass(frozen=True)
class Grounding:
    """Masks of the N phrases of an image, as logits: positive is inside.

    coarse: (N, p, q) over the whole image, from the mask head. refined: (N, H, W) float32, from
    the refiner. scores: (N,) float32 in [0, 1], the confidence in each, without gradients; see
    `TrainableHeads.scores`.
    """

    coarse: Tensor
    refined: Tensor
    scores: Tensor


class TrainableHeads(nn.Module):
    """Mask head, text projection, layer weights, and what trains of the refiner (of SAM the prompt
    encoder and mask decoder).

    A `GroundedLMM` holds them as `heads`. Engines get this module alone, so neither the LMM nor
    SAM's image encoder is cast, partitioned or checkpointed. Files of heads have its names.

    Args:
        lmm: the frozen LMM that the features come from. Only its sizes are read.
        mask_head: takes `lmm.map_channels` maps of a phrase.
        sam: refines the coarse masks; what trains of it is shared with it. With `CoarseOnly`, which
            reads no words, only the mask head trains.
        merge: how attention of the tokens of a phrase becomes one map, "mean" or "max".

    Raises:
        ValueError: a mask head for another LMM, or an unknown merge.
    """

    def __init__(
        self, lmm: FrozenLMM, mask_head: UNetHead, sam: TrainableRefiner, *, merge: str = "mean"
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

        self.merge = merge
        self.own_positions = True
        self.made_for = frozen_parts(lmm, sam)

        # The order decides in which order an optimizer sees the parameters.
        self.text_layer_weights = nn.Parameter(torch.ones(lmm.layers))
        self.mask_head = mask_head
        self.reads_words = sam.text_width > 0
        self.text_layer_weights.requires_grad_(self.reads_words)
        self.text_proj: nn.Linear | None = None
        if self.reads_words:
            self.text_proj = nn.Linear(lmm.hidden_size, sam.text_width)
        self.sam = sam.without_encoder()

        # Not trained with the others: see `fit_presence`. knows: see `heads.facts.KNOWS`.
        self.evidence_size = evidence_size(lmm.map_channels)
        self._legal_sizes = legal_sizes(lmm.map_channels, lmm.hidden_size)
        self.presence: PresenceHead | None = None
        self.knows: dict[str, Any] | None = None

    def forward(
        self, features: Sequence[PhraseFeatures], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[Grounding]:
        """Turn features of phrases, computed now or earlier, into masks.

        Args:
            features: one for each image.
            images: SAM's embeddings of the images.
        """
        return self.ground(features, images, refiner=self.sam)

    def ground(
        self,
        features: Sequence[PhraseFeatures],
        images: Sequence[Image.Image | ImageEmbedding],
        *,
        refiner: Refiner | None = None,
    ) -> list[Grounding]:
        """Do the work of `forward`, with a refiner that may also embed images."""
        coarse = [self.coarse_masks(of_image) for of_image in features]
        text = [self.text_embeddings(of_image) for of_image in features]
        found = (refiner or self.sam).refine(images, coarse, text)
        refined = [of_image.masks for of_image in found]

        if self.text_proj is not None and not any(of_image.lengths for of_image in features):
            # SAM then reads no text. A rank without phrases must still run the same backward pass
            # as the other ranks.
            none = sum(self._project(self.text_proj, of_image).sum() for of_image in features)
            refined = [masks + none for masks in refined]
        scores = [self.scores(*of_image) for of_image in zip(features, coarse, found, strict=True)]
        return [Grounding(*of_image) for of_image in zip(coarse, refined, scores, strict=True)]

    @torch.no_grad()
    def scores(self, features: PhraseFeatures, coarse: Tensor, found: RefinedMasks) -> Tensor:
        """Score the masks of an image -> (N,) float32 in [0, 1], 0 for empty masks.

        With a presence head it is the probability that the phrase is present and its mask right;
        without one it is geometric only, see `geometric_scores`.
        """
        if self.presence is None:
            return geometric_scores(coarse, found.masks, found.ious)
        with torch.autocast(coarse.device.type, enabled=False):
            size = self.presence.inputs
            collect = older_evidence if self._legal_sizes[size] else presence_evidence
            scores = self.presence.scores(collect(features, coarse, found)[:, :size])
        return scores * (found.masks > 0).flatten(1).any(1)

    @property
    def score_kind(self) -> str:
        """The kind of the scores: "presence", a probability, or "geometric"."""
        return "geometric" if self.presence is None else "presence"

    @property
    def absent_below(self) -> float:
        """Score below which a phrase is called "not in the picture"; 0, never, for geometric
        scores."""
        return 0.0 if self.presence is None else self.presence.threshold

    def use_presence(self, head: PresenceHead | None) -> None:
        """Score by this presence head; None for geometric scores.

        Raises:
            ValueError: it was fitted for another LMM.
        """
        if head is not None and head.inputs not in self._legal_sizes:
            raise ValueError(
                f"the presence head reads {head.inputs} numbers and this LMM gives "
                f"{self.evidence_size}: use the heads that were trained with this LMM"
            )
        self.presence = None if head is None else head.to(self.text_layer_weights.device)

    def coarse_masks(self, features: PhraseFeatures) -> Tensor:
        """Return (N, p, q) logits over the image. The mask head sees the padding, too, which is cut
        off afterwards."""
        return features.layout.crop(self.mask_head(features.maps))

    def text_embeddings(self, features: PhraseFeatures) -> list[Tensor]:
        """Return N tensors (t, E): the hidden states of each phrase's tokens, summed over layers by
        learned weights and projected. E is 0 for a refiner that reads no words."""
        if self.text_proj is None:
            words = features.states.new_zeros(features.states.shape[1], 0)
        else:
            words = self._project(self.text_proj, features)
        return list(words.split(list(features.lengths)))

    def _project(self, projection: nn.Linear, features: PhraseFeatures) -> Tensor:
        return projection(self.sum_states(features.states).to(projection.weight.dtype))  # (T, E)

    def sum_states(self, states: Tensor) -> Tensor:
        """Sum (L, T, D) over layers -> (T, D), weighted by the softmax of `text_layer_weights`, in
        the wider dtype of both."""
        weights = self.text_layer_weights.softmax(0)
        return (states * weights[:, None, None]).sum(0)

    def direct_parameters(self) -> list[nn.Parameter]:
        """List the parameters that engines such as ZeRO-3 gather once per step: all that train.

        They are few, and some are read outside the forward of the module that owns them.
        """
        return [p for p in self.parameters() if p.requires_grad]

    def trained_names(self) -> list[str]:
        """List the names in the state dict of everything that trains."""
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def saved_names(self) -> list[str]:
        """List what a file of heads has: everything that trains, and SAM's positional encoding if
        it was loaded from a file of heads.

        DeepSpeed adds that buffer to released checkpoints, rounded to bfloat16 as their heads were
        trained with it.
        """
        positions = [] if self.own_positions else [OWN_POSITIONS]
        return [*self.trained_names(), *self.presence_names(), *positions]

    def presence_names(self) -> list[str]:
        """List the names in the state dict of the presence head, if there is one."""
        return (
            [] if self.presence is None else [f"presence.{n}" for n in self.presence.state_dict()]
        )

    def facts(self) -> dict[str, Any]:
        """Return the facts that a file of heads has next to the weights: "merge", "mask_head",
        "prompts", "lmm", "refiner", "sam_image_encoder", and "presence" and "knows" if they
        exist."""
        facts = {"merge": self.merge, **trained_parts(self.mask_head, self.sam), **self.made_for}
        if self.presence is not None:
            facts["presence"] = self.presence.facts()
        if self.knows is not None:
            facts["knows"] = self.knows
        return facts

    def load_heads(self, source: str | Path | Mapping[str, Any]) -> None:
        """Load the trained weights from a file of `save_heads` or a released F-LMM checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, belongs to another LMM or SAM, or was trained with
                another `merge`. The differences are listed.
        """
        name = "the state dict" if isinstance(source, Mapping) else str(source)
        read_heads(self, open_heads(source), name=name, facts=read_facts(source))

    def save_heads(self, path: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> Path:
        """Write the trained weights and `facts`, and no frozen weights, as safetensors. Values in
        `state_dict` replace the module's own."""
        return write_heads(self, path, state_dict)

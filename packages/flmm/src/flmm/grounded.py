"""A frozen LMM with the heads that turn its attention into masks (F-LMM, arXiv 2406.05821)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clim_models import UNetHead
from PIL import Image
from torch import Tensor, nn

from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.registry import load_lmm
from flmm.heads.facts import chosen_merge, read_facts
from flmm.heads.files import mask_head_options, open_heads, read_heads
from flmm.heads.trainable import Grounding, TrainableHeads
from flmm.hub import check_device
from flmm.pictures.files import read_image
from flmm.pictures.orientation import orientation_of, turn_back
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import TrainableRefiner
from flmm.refiners.sam.load import load_refiner


class GroundedLMM(nn.Module):
    """A frozen LMM, SAM, and the heads between them: phrases of a text about an image to masks.

    `heads` trains; the LMM and SAM's image encoder stay frozen and in evaluation mode.

    Args:
        lmm: an LMM of `flmm.load_lmm` or `flmm.build_lmm`.
        mask_head: takes `lmm.map_channels` maps of a phrase.
        sam: refines the coarse masks: a `SamRefiner`, or `CoarseOnly` for none.
        merge: how attention of the tokens of a phrase becomes one map, "mean" or "max".

    Raises:
        ValueError: a mask head for another LMM, or an unknown merge.
    """

    def __init__(
        self, lmm: FrozenLMM, mask_head: UNetHead, sam: TrainableRefiner, *, merge: str = "mean"
    ):
        super().__init__()
        self.heads = TrainableHeads(lmm, mask_head, sam, merge=merge)
        self.lmm = lmm
        self.sam = sam

    @property
    def merge(self) -> str:
        """The way to merge the attention of a phrase's tokens into one map."""
        return self.heads.merge

    @property
    def mask_head(self) -> UNetHead:
        return self.heads.mask_head

    @property
    def text_proj(self) -> nn.Linear | None:
        """Projects words for the refiner; None where it reads none."""
        return self.heads.text_proj

    @property
    def text_layer_weights(self) -> nn.Parameter:
        return self.heads.text_layer_weights

    def forward(
        self, samples: Sequence[Sample], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[Grounding]:
        """Return the masks of the phrases of several images, the LMM's part in one batch.

        Args:
            samples: one for each image, with the phrases marked in its text.
            images: the original images, for SAM, or their embeddings from `sam.embed`.

        Raises:
            ValueError: see `FrozenLMM.forward` and `SamRefiner.refine`.
        """
        return self.ground(self.lmm(samples, merge=self.merge), images)

    def ground(
        self, features: Sequence[PhraseFeatures], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[Grounding]:
        """Turn features of phrases, computed now or earlier, into masks."""
        return self.heads.ground(features, images, refiner=self.sam)

    def coarse_masks(self, features: PhraseFeatures) -> Tensor:
        """Return (N, p, q) logits over the image; see `TrainableHeads.coarse_masks`."""
        return self.heads.coarse_masks(features)

    def text_embeddings(self, features: PhraseFeatures) -> list[Tensor]:
        """Return N tensors (t, E), the projected words of each phrase."""
        return self.heads.text_embeddings(features)

    def sum_states(self, states: Tensor) -> Tensor:
        """Sum hidden states (L, T, D) over layers by their learned weights -> (T, D)."""
        return self.heads.sum_states(states)

    def direct_parameters(self) -> list[nn.Parameter]:
        """List the parameters that are read outside the forward of the module that owns them."""
        return self.heads.direct_parameters()

    def trained_names(self) -> list[str]:
        """List the names in the state dict of `heads` of everything that trains."""
        return self.heads.trained_names()

    def facts(self) -> dict[str, Any]:
        """Return the facts that a file of heads has next to the weights."""
        return self.heads.facts()

    def load_heads(self, source: str | Path | Mapping[str, Any]) -> None:
        """Load the trained weights; see `TrainableHeads.load_heads`."""
        self.heads.load_heads(source)

    def save_heads(self, path: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> Path:
        """Write the trained weights and no frozen ones; see `TrainableHeads.save_heads`."""
        return self.heads.save_heads(path, state_dict)


def ground_as_given(
    model: GroundedLMM, features: PhraseFeatures, image: Image.Image | ImageEmbedding
) -> Grounding:
    """Turn features of phrases into masks that lie on a picture as its pixels are stored.

    Args:
        features: of the upright picture.
        image: the picture, which its camera can have turned, or SAM's embedding of it upright.
    """
    given = orientation_of(image)
    upright = image if isinstance(image, ImageEmbedding) else read_image(image)
    (found,) = model.ground([features], [upright])
    coarse, refined = (turn_back(masks, given) for masks in (found.coarse, found.refined))
    return Grounding(coarse, refined, found.scores)


def load_grounded(
    lmm: str | Path | FrozenLMM,
    *,
    sam: str | Path,
    heads: str | Path | None = None,
    merge: str | None = None,
    dtype: str = "bfloat16",
    device: str = "cpu",
) -> GroundedLMM:
    """Load a whole grounded LMM from its files, in evaluation mode, with the options that its heads
    were trained with.

    Args:
        lmm: folder or hub id, or an LMM that is loaded already.
        sam: file in SAM's original layout, folder or hub id; "none" for coarse masks only.
        heads: file of `GroundedLMM.save_heads` or a released F-LMM checkpoint; None for new heads
            that are to train.
        merge: "mean" or "max"; None takes the merge of the heads. Released checkpoints do not name
            it, but all of them are "mean".
        dtype: of the LMM; the heads and SAM are float32.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: a file is damaged, the parts do not belong together, or there is no such device.
    """
    check_device(device)
    name = str(heads)
    tensors, facts = ({}, {}) if heads is None else (open_heads(heads), read_facts(heads))
    merge = chosen_merge(facts, merge, name=name)
    sizes = {} if heads is None else mask_head_options(tensors, facts, name=name)
    refiner = load_refiner(sam, **facts.get("prompts", {}))  # before the LMM, which takes longest
    frozen = lmm if isinstance(lmm, FrozenLMM) else load_lmm(lmm, dtype=dtype)
    model = GroundedLMM(frozen, UNetHead(frozen.map_channels, **sizes), refiner, merge=merge)
    if heads is not None:
        read_heads(model.heads, tensors, name=name, facts=facts)
    return model.to(device).eval()

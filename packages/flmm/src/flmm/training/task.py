"""Training of the heads of a `GroundedLMM` (F-LMM, arXiv 2406.05821) as a task of clim-train.

Letters: B images of a step, n_i phrases of image i, N their sum on this rank, L layers of the LMM,
D its hidden width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.files import write_json
from clim_data.processes import Ranks
from clim_models.losses import mask_losses
from clim_train.methods import rows_per_rank
from torch import Tensor, nn

from flmm.adapters.features import PhraseFeatures
from flmm.adapters.layout import single_grid
from flmm.grounded import GroundedLMM
from flmm.heads.facts import ABOUT_FILE, HEADS_FILE, portable_source
from flmm.samples import FrozenFeatures, GroundingBatch, GroundingItem, frozen_inputs
from flmm.training.feature_cache import FeatureCache


class GroundingTask:
    """Dice and cross-entropy of the coarse and of SAM's masks, each phrase with the same weight.

    The loss is the mean over all phrases of the global batch. Gradients that are averaged over
    ranks equal the gradients of one process with all images, also where some ranks have fewer
    phrases, or none. (In the original, the mean of each GPU has the same weight.) Losses and masks
    are computed in float32 at every precision.

    Args:
        model: its LMM and image encoder stay frozen, outside of `self.model` and in their own
            dtype. They follow the batches to their device.
        cache: takes the features of every item that came without features.
        about: entries of grounding.json, written by `save`, such as the names of LMM and SAM.
    """

    def __init__(
        self,
        model: GroundedLMM,
        *,
        cache: FeatureCache | None = None,
        about: Mapping[str, Any] | None = None,
    ):
        self.model = model.heads
        # The presence head was fitted on masks that will change, so it is fitted again after the
        # training.
        self.model.use_presence(None)
        self.lmm = model.lmm
        self.encoder = model.sam.frozen_encoder()
        self.cache = cache
        self.about = dict(about or {})

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def loss(self, batch: GroundingBatch) -> dict[str, Tensor]:
        """Compute the losses of a batch, and figures for the log.

        Returns:
            {"loss", "loss_mask", "loss_dice", "accuracy", "aiou", the same four with "sam_" before
            them, "phrases"}. "loss" is the sum of the four losses, "phrases" the mean number of
            phrases of a rank. The average of each other figure over ranks is its mean over all
            phrases. With a cache also "kept", the fraction of items whose features it had.
        """
        device = self.model.text_layer_weights.device
        features = self.frozen_features(batch.items, device)
        targets = [item.masks.to(device) for item in batch.items]
        count, images = batch.phrases, max(len(batch), 1)

        # Under ZeRO-3 all ranks must run a module equally often, or they wait for each other
        # forever. A rank with fewer images runs it on empty ones.
        spare = most_images(images, device) - len(batch)
        features += [self._nothing(device)] * spare
        targets += [torch.zeros(1, 1, 1, device=device)] * spare
        masks = self.model.ground([f.phrases for f in features], [f.embedding for f in features])

        coarse = mask_losses([m.coarse for m in masks[:images]], targets[:images])
        refined = mask_losses([m.refined for m in masks[:images]], targets[:images])
        # A rank's means count as much as its share of all phrases.
        rows = rows_per_rank(count, device)
        figures = {**coarse, **{f"sam_{name}": value for name, value in refined.items()}}
        figures = {name: value * (count / rows) for name, value in figures.items()}

        losses = [value for name, value in figures.items() if "loss" in name]
        total = sum(losses[1:], losses[0])
        # Zero times the masks of the empty images: their backward pass runs on this rank, too.
        for unused in masks[images:]:
            total = total + 0 * (unused.coarse.sum() + unused.refined.sum())

        found = {"loss": total, **figures, "phrases": rows}
        if self.cache is not None:
            kept = sum(item.kept is not None for item in batch.items)
            found["kept"] = torch.full((), kept / max(len(batch), 1), device=device)
        return found

    @torch.no_grad()
    def frozen_features(
        self, items: Sequence[GroundingItem], device: torch.device
    ) -> list[FrozenFeatures]:
        """Return the features of the items' phrases and images on `device`, from the cache where
        they are there, else from LMM and SAM."""
        new = [item for item in items if item.kept is None]
        made = iter(self._compute(new, device))
        return [_on(item.kept, device) if item.kept is not None else next(made) for item in items]

    def _compute(
        self, items: Sequence[GroundingItem], device: torch.device
    ) -> list[FrozenFeatures]:
        if not items:
            return []
        if self.lmm.device != device:
            self.lmm.to(device)
        self.encoder.to(device)

        samples, images = frozen_inputs(items)
        # Frozen models run in the dtype of their weights.
        with torch.autocast(device.type, enabled=False):
            phrases = self.lmm(samples, merge=self.model.merge)
            embeddings = self.encoder.embed(images)
        made = [FrozenFeatures(p, e) for p, e in zip(phrases, embeddings, strict=True)]

        if self.cache is not None:
            for item, features in zip(items, made, strict=True):
                self.cache.keep(item, features)
        return made

    def _nothing(self, device: torch.device) -> FrozenFeatures:
        """Make the features of an empty phrase on a blank image, for ranks that lack an image."""
        layers, width = len(self.model.text_layer_weights), self.lmm.hidden_size
        channels = self.model.mask_head.in_channels
        maps = torch.zeros(1, channels, 8, 8, device=device)
        states = torch.zeros(layers, 1, width, device=device)
        embedding = self.model.sam.blank_embedding(device)
        return FrozenFeatures(PhraseFeatures(maps, states, (1,), single_grid(8, 8)), embedding)

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write heads.safetensors, which has only trained weights and which
        `GroundedLMM.load_heads` reads, and grounding.json."""
        self.model.save_heads(Path(folder) / HEADS_FILE, state)
        about = dict(self.about)
        for part in ("lmm", "sam"):
            if isinstance(about.get(part), str):
                about[part] = portable_source(about[part], Path(folder))
        write_json(Path(folder) / ABOUT_FILE, about, indent=2)


def most_images(images: int, device: torch.device) -> int:
    """Return the largest number of images that a rank has in this step."""
    if Ranks.of_group().world_size == 1:
        return images
    most = torch.tensor(images, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def _on(kept: FrozenFeatures, device: torch.device) -> FrozenFeatures:
    p = kept.phrases
    phrases = PhraseFeatures(p.maps.to(device), p.states.to(device), p.lengths, p.layout)
    return FrozenFeatures(phrases, kept.embedding.to(device))

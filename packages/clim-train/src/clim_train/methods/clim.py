"""CLIM (arXiv 2312.11376): tiles of mosaics as pseudo regions, contrasted with their captions.

Letters: M mosaics, n_i tiles of mosaic i, S single images, N = sum n_i + S pairs of this rank, C
channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.distributed as dist
from clim_data.processes.ranks import ranks
from clim_data.streams.mosaics import MosaicBatch
from clim_models.losses.contrastive import contrastive_loss
from clim_models.losses.gather import GatherFeatures
from torch import Tensor, nn

from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.region_parts import pixels, save_weights, trained_parameters
from clim_train.methods.text_features import TextFeatures, caption_ids
from clim_train.options.checks import check_at_least, check_choice
from clim_train.options.sections import BoxMode

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class ClimConfig:
    """CLIM: pseudo regions and single images against their captions."""

    DATA: ClassVar[type] = PairDataConfig
    name: Literal["clim"] = "clim"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's v2); `attention` lets a class token attend in each
    tile (v1)."""
    mask_duplicate_captions: bool = False
    """True: pairs with the same caption are not negatives of each other."""
    text_cache: int = 65536
    """Captions whose text feature is kept while the text tower is frozen; 0 turns the cache off."""

    def __post_init__(self) -> None:
        check_choice(self, "task", "name")
        check_choice(self, "task", "box_mode")
        check_at_least(self, "task", text_cache=0)


MAX_LOG_SCALE = math.log(100)


class ClimTask:
    """Region features of mosaic tiles and features of single images against text features, in one
    symmetric InfoNCE.

    The loss is over the global batch: with k ranks of N pairs each pair has k * N - 1 negatives on
    either side, and averaging gradients over ranks gives those of one process with k * N pairs.

    Args:
        model: `freeze` decides what trains (`model.freeze(unlocked_blocks=...)`); the text tower is
            run without gradients, and its features are kept, as long as it is frozen.
        box_mode: "align" pools the dense map (the paper's v2), "attention" lets a class token
            attend in the tile (v1).
        mask_duplicate_captions: pairs with the same caption, on any rank, are not negatives of each
            other.
        text_cache: captions whose feature is kept; the least recently used go first. 0 keeps none.
        lockstep: every rank runs the image tower on mosaics and on single images in every step, on
            a blank one where its batch has none (skipped samples can do that). ZeRO-3 needs it: its
            ranks gather weights together.

    Raises ValueError for an unknown `box_mode` or a negative `text_cache`.
    """

    def __init__(
        self,
        model: "RegionModel",
        *,
        mask_duplicate_captions: bool = False,
        box_mode: str = "align",
        text_cache: int = 65536,
        lockstep: bool = False,
    ):
        if box_mode not in ("align", "attention"):
            raise ValueError(f"box_mode={box_mode!r} is not possible: use 'align' or 'attention'")
        if text_cache < 0:
            raise ValueError(
                f"text_cache={text_cache!r} is not possible: use 0 for no cache, or a number of "
                "captions"
            )
        self.model = model
        self.box_mode = box_mode
        self.mask_duplicate_captions = mask_duplicate_captions
        self.lockstep = lockstep
        self.text_features = TextFeatures(model, text_cache)

    @property
    def parameter_bounds(self) -> dict[str, tuple[float, float]]:
        """logit_scale stays in [0, ln 100] (CLIP, arXiv 2103.00020, section 2.5)."""
        return {
            name: (0.0, MAX_LOG_SCALE)
            for name in self.trainable_parameters()
            if name.endswith("logit_scale")
        }

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self.model, logit_scale=True)

    def loss(self, batch: MosaicBatch) -> dict[str, Tensor]:
        """{"loss", "logit_scale"} of one batch: uint8 pixels, or floats that are normalised
        already."""
        image_features = self.image_features(batch)  # (N, C)
        text_features = self.text_features(batch.captions)  # (N, C)
        scale = self.model.logit_scale.exp().squeeze()
        ids = (
            caption_ids(batch.captions, image_features.device)
            if self.mask_duplicate_captions
            else None
        )
        # Autocast would run the similarities in 16 bits, whatever dtype the features have.
        with torch.autocast(image_features.device.type, enabled=False):
            loss = contrastive_loss(
                image_features.float(),
                text_features.float(),
                scale,
                caption_ids=ids,
                gather=self.gather(),
            )
        return {"loss": loss, "logit_scale": scale}

    def image_features(self, batch: MosaicBatch) -> Tensor:
        """(N, C) unit rows: tiles mosaic by mosaic, row-major, then the single images; row i has
        caption i."""
        if not len(batch):
            raise ValueError(
                "the batch has neither mosaics nor single images: give the loader data"
            )
        rows = []
        if len(batch.mosaics):
            rows.append(
                self.model.encode_boxes(
                    self._pixels(batch.mosaics), batch.boxes, mode=self.box_mode
                )
            )
        elif self.lockstep:
            # No rows, but a graph: the backward pass, too, runs through the tower.
            # Filled on the device: a copy from the host would wait for it.
            whole = torch.zeros(1, 4, device=batch.mosaics.device)
            whole[:, 2:] = 1.0
            rows.append(
                self.model.encode_boxes(self._blank(batch.mosaics), [whole], mode=self.box_mode)[:0]
            )
        if len(batch.singles):
            rows.append(self.model.encode_image(self._pixels(batch.singles)))
        elif self.lockstep:
            rows.append(self.model.encode_image(self._blank(batch.singles))[:0])
        return torch.cat(rows)

    def gather(self) -> GatherFeatures | None:
        """How rows of other ranks are reached; None for a single process."""
        return GatherFeatures(ranks(), dist.get_rank()) if ranks() > 1 else None

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Writes `folder` for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)

    def _blank(self, none: Tensor) -> Tensor:
        return self._pixels(none.new_zeros(1, *none.shape[1:]))

    def _pixels(self, images: Tensor) -> Tensor:
        return pixels(self.model, images)

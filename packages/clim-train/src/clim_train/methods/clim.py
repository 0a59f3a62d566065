"""CLIM (arXiv 2312.11376): tiles of mosaics as pseudo regions, contrasted with their captions.

Letters: M mosaics, n_i tiles of mosaic i, S single images, N = sum n_i + S pairs of this rank, C
channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from clim_data import MosaicBatch, plan_mosaics
from clim_data.processes import Ranks
from clim_models.losses import GatherFeatures, contrastive_loss
from torch import Tensor, nn

from clim_train.methods.method import BuildContext, Method
from clim_train.methods.pairs import PAIRS, PairDataConfig
from clim_train.methods.region_parts import (
    RegionOptions,
    check_box_mode,
    pixels,
    regions_only,
    save_weights,
    trained_parameters,
)
from clim_train.methods.text_features import TextFeatures, caption_ids
from clim_train.options.checks import check_at_least

if TYPE_CHECKING:
    from clim_models import RegionModel

MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class ClimConfig(RegionOptions):
    """CLIM: pseudo regions and single images against their captions."""

    name: Literal["clim"] = "clim"
    mask_duplicate_captions: bool = False
    """True: pairs with the same caption are not negatives of each other."""
    text_cache: int = 65536
    """Number of captions whose text feature is kept while the text tower is frozen; 0 keeps
    none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "task", text_cache=0)


class ClimTask:
    """Features of mosaic tiles and of single images against text features, in one symmetric
    InfoNCE.

    The loss is over the global batch: with k ranks of N pairs, each pair has k * N - 1 negatives in
    either direction. Averaged over ranks, gradients are those of one process with k * N pairs.

    Args:
        model: `freeze` decides what trains (`model.freeze(unlocked_blocks=...)`). While the text
            tower is frozen, it runs without gradients and its features are kept.
        box_mode: "align" pools the dense map (the paper's v2), "attention" lets a class token
            attend in the tile (v1).
        mask_duplicate_captions: pairs with the same caption, on any rank, are not negatives of each
            other.
        text_cache: number of captions whose feature is stored; the least recently used are dropped
            first.
        lockstep: every rank runs the image tower on mosaics and on single images in every step, on
            a blank image where its batch has none (skipped samples can cause that). ZeRO-3 needs
            it, because its ranks gather weights together.

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
    ) -> None:
        check_box_mode(box_mode)
        if text_cache < 0:
            raise ValueError(
                f"text_cache={text_cache!r} is not possible: "
                "use 0 for no cache, or a number of captions"
            )
        self.model = model
        self.box_mode = box_mode
        self.mask_duplicate_captions = mask_duplicate_captions
        self.lockstep = lockstep
        self.text_features = TextFeatures(model, text_cache)

    @property
    def parameter_bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds of logit_scale: [0, ln 100] (CLIP, arXiv 2103.00020, section 2.5)."""
        names = [name for name in self.trainable_parameters() if name.endswith("logit_scale")]
        return dict.fromkeys(names, (0.0, MAX_LOG_SCALE))

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return what `freeze` left trainable, the logit scale included."""
        return trained_parameters(self.model, logit_scale=True)

    def loss(self, batch: MosaicBatch) -> dict[str, Tensor]:
        """Return {"loss", "logit_scale"} of one batch of uint8 pixels or normalised floats."""
        image_features = self.image_features(batch)  # (N, C)
        text_features = self.text_features(batch.captions)  # (N, C)
        scale = self.model.logit_scale.exp().squeeze()

        ids = None
        if self.mask_duplicate_captions:
            ids = caption_ids(batch.captions, image_features.device)

        # Autocast would run the similarities in 16 bits even where the features are float32.
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
        """Return (N, C) unit rows: tiles mosaic by mosaic, row-major, then the single images.

        Row i belongs to caption i. Raises ValueError for an empty batch.
        """
        if not len(batch):
            raise ValueError(
                "the batch has neither mosaics nor single images: give the loader data"
            )

        rows = []
        if len(batch.mosaics):
            mosaics = self._pixels(batch.mosaics)
            rows.append(self.model.encode_boxes(mosaics, batch.boxes, mode=self.box_mode))
        elif self.lockstep:
            # The result has no rows but a graph, so the backward pass runs through the tower, too.
            # The box is filled on the device, because a copy from the host would wait for it.
            whole = torch.zeros(1, 4, device=batch.mosaics.device)
            whole[:, 2:] = 1.0
            blank = self._blank(batch.mosaics)
            rows.append(self.model.encode_boxes(blank, [whole], mode=self.box_mode)[:0])

        if len(batch.singles):
            rows.append(self.model.encode_image(self._pixels(batch.singles)))
        elif self.lockstep:
            rows.append(self.model.encode_image(self._blank(batch.singles))[:0])
        return torch.cat(rows)

    def gather(self) -> GatherFeatures | None:
        """Return what reaches the rows of other ranks, or None for a single process."""
        rank, world_size = Ranks.of_group()
        return GatherFeatures(world_size, rank) if world_size > 1 else None

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write `folder` for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)

    def _blank(self, none: Tensor) -> Tensor:
        """Return one black image of the size of `none`, which has no rows."""
        return self._pixels(none.new_zeros(1, *none.shape[1:]))

    def _pixels(self, images: Tensor) -> Tensor:
        return pixels(self.model, images)


def build_clim(
    options: ClimConfig, model: "RegionModel", context: BuildContext[PairDataConfig]
) -> ClimTask:
    """Build CLIM's task."""
    # Without mosaics there is one kind of batch, and no rank can differ.
    has_mosaics = context.data.mosaic.group_size > 0
    return ClimTask(
        model,
        mask_duplicate_captions=options.mask_duplicate_captions,
        box_mode=options.box_mode,
        text_cache=options.text_cache,
        lockstep=context.engine.zero_stage == 3 and has_mosaics,
    )


def mosaics_and_singles(options: ClimConfig, data: PairDataConfig) -> str:
    """Return the path of the image tower that the batches use: of regions, of whole images, or
    both."""
    plan = plan_mosaics(data.batch_size, data.mosaic)
    if not plan.sides:
        return "image"
    return "all" if plan.num_singles else regions_only(options)


CLIM = Method(
    name="clim",
    title="CLIM",
    options=ClimConfig,
    data=PAIRS,
    build=build_clim,
    gradient_path=mosaics_and_singles,
    # All images of a step are each other's negatives.
    micro_batch=None,
)

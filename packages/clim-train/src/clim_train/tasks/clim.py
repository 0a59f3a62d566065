"""CLIM (arXiv 2312.11376): tiles of mosaics as pseudo regions, contrasted with their captions.

Letters: M mosaics, n_i tiles of mosaic i, S single images, N = sum n_i + S pairs of this rank, C channels.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from clim_data.mosaics import MosaicBatch
from clim_models import RegionModel
from clim_models.losses import GatherFeatures, contrastive_loss
from torch import Tensor, nn

from clim_train.tasks.region_parts import pixels, ranks, save_weights, trained_parameters

MAX_LOG_SCALE = math.log(100)


class ClimTask:
    """Region features of mosaic tiles and features of single images against text features, in one symmetric InfoNCE.

    The loss is over the global batch: with k ranks of N pairs each pair has k * N - 1 negatives on either side, and
    averaging gradients over ranks gives those of one process with k * N pairs.

    Args:
        model: `freeze` decides what trains (`model.freeze(unlocked_blocks=...)`); the text tower is run without
            gradients, and its features are kept, as long as it is frozen.
        box_mode: "align" pools the dense map (the paper's v2), "attention" lets a class token attend in the tile (v1).
        mask_duplicate_captions: pairs with the same caption, on any rank, are not negatives of each other.
        text_cache: captions whose feature is kept; the least recently used go first. 0 keeps none.
        lockstep: every rank runs the image tower on mosaics and on single images in every step, on a blank one where
            its batch has none (skipped samples can do that). ZeRO-3 needs it: its ranks gather weights together.

    Raises ValueError for an unknown `box_mode` or a negative `text_cache`.
    """

    def __init__(
        self,
        model: RegionModel,
        *,
        mask_duplicate_captions: bool = False,
        box_mode: str = "align",
        text_cache: int = 65536,
        lockstep: bool = False,
    ):
        if box_mode not in ("align", "attention"):
            raise ValueError(f"box_mode={box_mode!r} is not possible: use 'align' or 'attention'")
        if text_cache < 0:
            raise ValueError(f"text_cache={text_cache!r} is not possible: use 0 for no cache, or a number of captions")
        self.model = model
        self.box_mode = box_mode
        self.mask_duplicate_captions = mask_duplicate_captions
        self.lockstep = lockstep
        self.text_features = TextFeatures(model, text_cache)

    @property
    def parameter_bounds(self) -> dict[str, tuple[float, float]]:
        """logit_scale stays in [0, ln 100] (CLIP, arXiv 2103.00020, section 2.5)."""
        return {name: (0.0, MAX_LOG_SCALE) for name in self.trainable_parameters() if name.endswith("logit_scale")}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self.model, logit_scale=True)

    def loss(self, batch: MosaicBatch) -> dict[str, Tensor]:
        """{"loss", "logit_scale"} of one batch: uint8 pixels, or floats that are normalised already."""
        image_features = self.image_features(batch)  # (N, C)
        text_features = self.text_features(batch.captions)  # (N, C)
        scale = self.model.logit_scale.exp().squeeze()
        ids = caption_ids(batch.captions, image_features.device) if self.mask_duplicate_captions else None
        # Autocast would run the similarities in 16 bits, whatever dtype the features have.
        with torch.autocast(image_features.device.type, enabled=False):
            loss = contrastive_loss(
                image_features.float(), text_features.float(), scale, caption_ids=ids, gather=self.gather()
            )
        return {"loss": loss, "logit_scale": scale}

    def image_features(self, batch: MosaicBatch) -> Tensor:
        """(N, C) unit rows: tiles mosaic by mosaic, row-major, then the single images; row i has caption i."""
        if not len(batch):
            raise ValueError("the batch has neither mosaics nor single images: give the loader data")
        rows = []
        if len(batch.mosaics):
            rows.append(self.model.encode_boxes(self._pixels(batch.mosaics), batch.boxes, mode=self.box_mode))
        elif self.lockstep:
            # No rows, but a graph: the backward pass, too, runs through the tower.
            whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=batch.mosaics.device)
            rows.append(self.model.encode_boxes(self._blank(batch.mosaics), [whole], mode=self.box_mode)[:0])
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


class TextFeatures:
    """Unit text features of captions; a frozen text tower sees each caption once while its feature is kept.

    Args:
        model: with `tokenizer` and `encode_text`.
        size: captions that are kept, least recently used first out.
    """

    def __init__(self, model: RegionModel, size: int):
        self.model, self.size = model, size
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, C), with gradients only where the text tower trains."""
        if not self.is_frozen():
            return self.model.encode_text(self.model.tokenizer(list(captions)))
        found = {text: self._kept[text] for text in captions if text in self._kept}
        missing = list(dict.fromkeys(text for text in captions if text not in found))
        if missing:
            # Copies: a view would keep the features of its whole batch alive.
            found.update((text, row.clone()) for text, row in zip(missing, self._encode(missing), strict=True))
        self._keep(found)
        return torch.stack([found[text] for text in captions])

    def is_frozen(self) -> bool:
        """Whether nothing but the image tower and the logit scale trains."""
        trained = (name for name, p in self.model.named_parameters() if p.requires_grad)
        return all(name.startswith(("clip.visual.", "clip.logit_")) for name in trained)

    @torch.no_grad()
    def _encode(self, captions: list[str]) -> Tensor:
        # Autocast is off so that a feature does not depend on whether it was computed in a training step.
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_text(self.model.tokenizer(captions))

    def _keep(self, found: dict[str, Tensor]) -> None:
        for text, row in found.items():
            self._kept[text] = row
            self._kept.move_to_end(text)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)


def caption_ids(captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """(N,) int64 that are equal for equal captions, on every rank: 63 bits of a hash of the text."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in captions)
    return torch.tensor([int.from_bytes(d, "big") >> 1 for d in digests], dtype=torch.int64, device=device)

"""RegionModel: an open_clip model with dense, box and mask features.

Letters: B images, h w patches, n_i regions of image i, R = sum of n_i, C embedding, N texts.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from clim_models.encoding import Encoding, RegionInputs
from clim_models.features import (
    Dense,
    ImageFeature,
    Readout,
    Request,
    as_readout,
    check_requests,
    region_request,
    request_named,
)
from clim_models.open_clip_compat import OpenClipModel
from clim_models.pooling import check_boxes, check_masks, unit_length
from clim_models.text.columns import drop_padding, encode_text
from clim_models.towers.evaluation import evaluation_mode
from clim_models.towers.freezing import direct_parameters, freeze_all_but, norm_layers
from clim_models.towers.tower import GradientPath, Stem
from clim_models.wrapper import OpenClipWrapper


class RegionModel(OpenClipWrapper):
    """An open_clip model (`CLIP` or `CustomTextCLIP`) that also encodes patches, boxes and masks.

    Args:
        open_clip_model: the wrapped model; it stays the owner of all weights (`self.clip`).
        antialias: resample position embeddings with antialiasing; the papers do not.
        partial_patches: "error" refuses images whose sides are not multiples of the stride. "crop"
            ignores the rest at the right and bottom, as the original code did; boxes then refer to
            the covered part.
        box_patches: patches of a box for mode="attention", "nearest" or "truncate" (see
            `box_patch_masks`).

    Raises:
        ValueError: an unsupported image tower (the message lists the supported ones), or an unknown
            option.
    """

    def __init__(
        self,
        open_clip_model: OpenClipModel,
        *,
        antialias: bool = False,
        partial_patches: str = "error",
        box_patches: str = "nearest",
    ):
        super().__init__(
            open_clip_model,
            antialias=antialias,
            partial_patches=partial_patches,
            box_patches=box_patches,
        )
        self._norms_frozen = False

    @cached_property
    def embed_dim(self) -> int:
        """Width C of the image-text space, measured on an image of zeros."""
        side = self.stride * 2
        zeros = torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype)
        with evaluation_mode(self), torch.no_grad():
            return self.encode_image(zeros).shape[1]

    # Features

    def encode(
        self,
        images: Tensor,
        requests: Sequence[Request],
        *,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        normalize: bool = True,
    ) -> dict[Request, Tensor]:
        """Compute several features from ONE forward of the image tower.

        Every other `encode_*` for images is a case of this.

        Args:
            images: (B, 3, H, W) normalised pixels, any H and W the grid allows.
            requests: any of `ImageFeature()` (B, C), `Dense(readout)` (B, C, h, w),
                `Pooled(regions, readout)` and `Attended(regions)` (R, C).
            boxes: B tensors (n_i, 4), XYXY in [0, 1] of the image.
            masks: B tensors (n_i, h, w), bool or 0/1, on the patch grid (`grid_size`).
            normalize: scale every feature to unit length. False gives raw image features, maps and
                attended regions. Pooled regions are then means of unit vectors, because the map is
                normalised before it is pooled; their length is at most 1.

        Returns:
            Each request with its feature: `features[Pooled("boxes")]`.

        Raises:
            ValueError: wrong requests, images, boxes or masks, or no attention in this tower.
        """
        requests = tuple(requests)
        check_requests(requests, boxes, masks)
        grid = self.grid_size(images.shape[-2], images.shape[-1])
        if boxes is not None:
            check_boxes(boxes, images.shape[0])
        if masks is not None:
            check_masks(masks, images.shape[0], grid)

        regions = RegionInputs(boxes, masks, self.box_patches)
        covered = self._crop_to_grid(images, grid)
        encoding = Encoding(self.tower, covered, grid, requests, regions)
        return encoding.read(requests, normalize=normalize)

    def forward(
        self,
        images: Tensor,
        requests: Sequence[Request],
        *,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        normalize: bool = True,
    ) -> dict[Request, Tensor]:
        """Call `encode`, so that hooks and engines see a call of the module."""
        return self.encode(images, requests, boxes=boxes, masks=masks, normalize=normalize)

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Encode whole images: (B, 3, H, W) -> (B, C), unit length unless `normalize=False`."""
        request = ImageFeature()
        return self.encode(images, [request], normalize=normalize)[request]

    def encode_text(self, token_ids: Tensor, normalize: bool = True) -> Tensor:
        """Encode texts: (N, T) token ids -> (N, C), unit length unless `normalize=False`."""
        token_ids = self.drop_padding(token_ids).to(self.device)
        return encode_text(self.clip, token_ids, normalize=normalize)

    def drop_padding(self, token_ids: Tensor) -> Tensor:
        """Drop columns of padding from ids on the CPU, before they are moved: (N, T) -> (N, t)."""
        return drop_padding(self.clip, token_ids)

    def encode_dense(
        self,
        images: Tensor,
        normalize: bool = True,
        readout: Readout | str = Readout.VALUE_RESIDUAL,
    ) -> Tensor:
        """Encode every patch in the image-text space.

        Args:
            images, normalize: as in `encode`.
            readout: how the last layer is read, see `Readout`. Towers that end in an attention pool
                or a convolution have "value_residual" and "value" only.

        Returns:
            (B, C, h, w), unit length over C unless `normalize=False`.
        """
        request = Dense(as_readout(readout))
        return self.encode(images, [request], normalize=normalize)[request]

    def encode_boxes(
        self,
        images: Tensor,
        boxes: Sequence[Tensor],
        mode: str = "align",
        *,
        normalize: bool = True,
        readout: Readout | str | None = None,
    ) -> Tensor:
        """Encode boxes.

        Args:
            images, boxes, normalize: as in `encode`.
            mode: "align" pools the unit-length dense map (RoIAlign 1x1). "attention" lets the class
                token attend inside the box only (ResNets: RoIAlign of the last map, then the
                attention pool).
            readout: how mode "align" reads the map, see `Readout`; None is VALUE_RESIDUAL.

        Returns:
            (R, C) in the order of the images.

        Raises:
            ValueError: wrong boxes, mode or readout, a readout with mode "attention", or a tower
                without attention readout.
        """
        request = region_request("boxes", mode, readout, pooled_mode="align")
        return self.encode(images, [request], boxes=boxes, normalize=normalize)[request]

    def encode_masks(
        self,
        images: Tensor,
        masks: Sequence[Tensor],
        mode: str = "mean",
        *,
        normalize: bool = True,
        readout: Readout | str | None = None,
    ) -> Tensor:
        """Encode masks, as `encode_boxes` encodes boxes.

        Args:
            masks: as in `encode`.
            mode: "mean" averages the unit-length dense map inside the mask, or "attention".

        Returns:
            (R, C). An empty mask gives zeros in mode "mean" and the class token alone in mode
            "attention".
        """
        request = region_request("masks", mode, readout, pooled_mode="mean")
        return self.encode(images, [request], masks=masks, normalize=normalize)[request]

    def encode_regions(
        self,
        images: Tensor,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        outputs: Sequence[str] = ("boxes", "masks"),
        *,
        normalize: bool = True,
    ) -> dict[str, Tensor]:
        """Compute several features, by name, from one forward.

        The names stay for one release; new code passes requests to `encode`.

        Args:
            images, boxes, masks, normalize: as in `encode`.
            outputs: names of `clim_models.features.REQUESTS`, such as "image", "dense",
                "dense_value", "boxes", "boxes_sclip" and "masks_attention".

        Raises:
            ValueError: an unknown output, or any error of `encode`.
        """
        requests = {name: request_named(name) for name in outputs}
        found = self.encode(
            images, list(requests.values()), boxes=boxes, masks=masks, normalize=normalize
        )
        return {name: found[request] for name, request in requests.items()}

    def encode_pyramid(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the raw maps of named blocks, from one forward of the image tower.

        Blocks count from 0, first block first, up to `num_blocks - 1`: transformer blocks of ViTs,
        the stem and the four layers of ResNets, the stages of other CNNs. Maps are neither
        normalised nor projected, and have no class token. The last block of a ViT that pools by
        class token or average runs its value path only, as in `encode_dense`.

        Args:
            images: (B, 3, H, W) normalised pixels.
            blocks: numbers of blocks, in any order.

        Returns:
            One (B, D, h, w) for each entry of `blocks`; CNN maps of early blocks are larger.

        Raises:
            ValueError: see `grid_size`; no block, or one that the tower does not have.

        Source: F-ViT's backbone (arXiv 2310.01403) reads a frozen tower like this.
        """
        stem = self._stem_of_blocks(images, blocks)
        return self.tower.pyramid(stem, blocks)

    def encode_pyramid_and_dense(
        self, images: Tensor, blocks: Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the maps of `encode_pyramid` and the map of `encode_dense`, from one forward.

        Args:
            images, blocks: as in `encode_pyramid`.

        Returns:
            One raw (B, D, h, w) for each block, and (B, C, h, w) of unit length over C.

        Raises:
            ValueError: as `encode_pyramid`.
        """
        stem = self._stem_of_blocks(images, blocks)
        maps = self.tower.pyramid(stem, blocks)
        return maps, unit_length(self.tower.dense(stem, Readout.VALUE_RESIDUAL), dim=1)

    def _stem_of_blocks(self, images: Tensor, blocks: Sequence[int]) -> Stem:
        blocks = list(blocks)
        if not blocks or not all(0 <= block < self.num_blocks for block in blocks):
            raise ValueError(
                f"blocks={blocks}; pass numbers from 0 to {self.num_blocks - 1}, "
                f"the blocks of this {self.tower_kind} tower"
            )
        grid = self.grid_size(images.shape[-2], images.shape[-1])
        return self.tower.stem(self._crop_to_grid(images, grid), keep=blocks)

    def _crop_to_grid(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Cut off the pixels that `partial_patches="crop"` ignores, in the dtype of the weights."""
        height = grid[0] * self.stride
        width = grid[1] * self.stride
        return images[..., :height, :width].to(self.dtype)

    # Training

    def freeze(self, unlocked_blocks: int, path: GradientPath | str = "all") -> list[str]:
        """Freeze everything but logit_scale and the last layers of the image tower.

        Units, last first. EVA: blocks, no more. ViT: blocks, then the position embedding, then what
        precedes the blocks. ResNet: layer4 ... layer1, the stem, and with any of them the attention
        pool's q, k and positions. CNN: stages, then the rest. Norms and projections into the
        image-text space never train, nor do batch norms (they also stop updating their statistics).
        More units than there are means all of them.

        Args:
            unlocked_blocks: number of units that train; 0 trains nothing of the tower.
            path: "all", or the only path that will be computed ("dense", "attention", "image"):
                parameters that get no gradient there (query and key of the last layer in "dense")
                are frozen too.

        Returns:
            Names of the trainable parameters.

        Raises:
            ValueError: a negative number or an unknown path.
        """
        freeze_all_but(self, self.tower, unlocked_blocks, path)
        self.logit_scale.requires_grad_(True)
        self._norms_frozen = True
        self.train(self.training)
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> "RegionModel":
        """Set the training mode; batch norms of a frozen model stay in evaluation mode."""
        super().train(mode)
        if self._norms_frozen:
            for norm in norm_layers(self.visual):
                norm.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass.

        Takes less memory and about a third more time, and gives the same numbers.
        """
        self.tower.grad_checkpointing = enable

    def direct_parameters(self, *, attention: bool = False) -> list[nn.Parameter]:
        """Return parameters that are read outside the forward of the module that owns them.

        Engines that take weights away between forwards (ZeRO-3) must know them. Mode "attention"
        reads more.
        """
        return direct_parameters(self.clip, self.tower, attention=attention)

"""RegionModel: an open_clip model with dense, box and mask features.

Letters: B images, h w patches, n_i regions of image i, R = sum of n_i, C embedding, N texts.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.features import READOUTS, check_outputs, is_attention, with_readout
from clim_models.pooling import (
    PackedRegions,
    box_patch_masks,
    check_boxes,
    check_masks,
    pack_regions,
    pool_boxes,
    pool_masks,
)
from clim_models.towers.freezing import freeze_model, norm_layers
from clim_models.towers.registry import find_tower
from clim_models.towers.tower import Readout


class RegionModel(nn.Module):
    """An open_clip model (`CLIP` or `CustomTextCLIP`) that also encodes patches, boxes and masks.

    Args:
        open_clip_model: the wrapped model; it stays the owner of all weights (`self.clip`).
        antialias: resample position embeddings with antialiasing; the papers do not.
        partial_patches: "error" refuses images whose sides are not multiples of the stride, "crop"
            ignores the rest at the right and bottom as the original code did (boxes then refer to
            the covered part).
        box_patches: patches of a box for mode="attention", "nearest" or "truncate" (see
            `pooling.box_patch_masks`).

    Raises:
        ValueError: the image tower is not supported (the message lists those that are), or an
            unknown option.
    """

    def __init__(
        self,
        open_clip_model: nn.Module,
        *,
        antialias: bool = False,
        partial_patches: str = "error",
        box_patches: str = "nearest",
    ):
        super().__init__()
        if partial_patches not in ("error", "crop"):
            raise ValueError(
                f"partial_patches={partial_patches!r}; legal values are 'error' and 'crop'"
            )
        if box_patches not in ("nearest", "truncate"):
            raise ValueError(
                f"box_patches={box_patches!r}; legal values are 'nearest' and 'truncate'"
            )
        if not hasattr(open_clip_model, "visual") or not hasattr(open_clip_model, "encode_text"):
            raise ValueError(
                f"{type(open_clip_model).__name__} is not an open_clip model; pass CLIP or "
                "CustomTextCLIP"
            )
        self.clip = open_clip_model
        self.tower = find_tower(open_clip_model.visual, antialias=antialias)
        self.partial_patches, self.box_patches = partial_patches, box_patches
        self.name: str | None = None
        self.config: dict | None = None
        self._norms_frozen = False
        size = getattr(open_clip_model.visual, "image_size", 224)
        self.image_size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        preprocess = getattr(open_clip_model.visual, "preprocess_cfg", None) or {}
        self.image_mean = tuple(preprocess.get("mean") or (0.48145466, 0.4578275, 0.40821073))
        self.image_std = tuple(preprocess.get("std") or (0.26862954, 0.26130258, 0.27577711))

    # What is wrapped

    @property
    def visual(self) -> nn.Module:
        return self.clip.visual

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the temperature's inverse, a scalar."""
        return self.clip.logit_scale

    @property
    def stride(self) -> int:
        """Pixels per feature position, both ways."""
        return self.tower.stride

    @property
    def tower_kind(self) -> str:
        """ "vit", "eva", "resnet", "timm_vit" or "timm_cnn"."""
        return self.tower.kind

    @property
    def num_blocks(self) -> int:
        return self.tower.num_blocks

    @property
    def dtype(self) -> torch.dtype:
        return self.logit_scale.dtype

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    @cached_property
    def embed_dim(self) -> int:
        """Width C of the image-text space."""
        side = self.stride * 2
        was_training = self.training
        self.eval()
        with torch.no_grad():
            width = self.encode_image(
                torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype)
            ).shape[1]
        self.train(was_training)
        return width

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """Texts -> (N, T) token ids, the tokenizer of the model's own configuration."""
        from clim_models.text.tokenizer import tokenizer_for

        return tokenizer_for(self.name, self.clip)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of an image of `height` x `width` pixels.

        Raises:
            ValueError: a side is no multiple of the stride and `partial_patches="error"`, or there
                is no patch.
        """
        s = self.stride
        if height < s or width < s:
            raise ValueError(
                f"image of {height}x{width} px is smaller than one patch of {s} px; enlarge it"
            )
        if self.partial_patches == "error" and (height % s or width % s):
            up = (-(-height // s) * s, -(-width // s) * s)
            raise ValueError(
                f"image of {height}x{width} px does not divide into patches of {s} px; resize or "
                "letterbox it to "
                f"{up[0]}x{up[1]} (or build the model with partial_patches='crop' to ignore the "
                "rest)"
            )
        return height // s, width // s

    def normalize_pixels(self, pixels: Tensor) -> Tensor:
        """uint8 RGB (B, 3, H, W) -> what the tower expects: CLIP mean and std, the model's dtype
        and device."""
        if pixels.dtype != torch.uint8:
            raise ValueError(f"pixels have dtype {pixels.dtype}; pass uint8 values from 0 to 255")
        x = pixels.to(self.device).float()
        # Made on the CPU and copied behind what the device has to do: with `device=` Python would
        # wait for it.
        channels = torch.tensor([self.image_mean, self.image_std]).view(2, 3, 1, 1) * 255
        mean, std = channels.to(x.device, non_blocking=True)
        return ((x - mean) / std).to(self.dtype)

    # Features

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Image features: (B, 3, H, W) normalised pixels -> (B, C), unit length unless
        `normalize=False`."""
        return self.encode_regions(images, outputs=("image",), normalize=normalize)["image"]

    def encode_text(self, token_ids: Tensor, normalize: bool = True) -> Tensor:
        """Text features: (N, T) token ids -> (N, C), unit length unless `normalize=False`."""
        return self.clip.encode_text(token_ids.to(self.device), normalize=normalize)

    def encode_dense(
        self, images: Tensor, normalize: bool = True, readout: Readout = "value_residual"
    ) -> Tensor:
        """Patch features in the image-text space.

        Args:
            images: (B, 3, H, W) normalised pixels, any H and W the grid allows.
            readout: "value_residual" runs the last layer without mixing between patches (value
                path, residual, MLP: the papers' path), "value" only its value and output
                    projections (MaskCLIP, arXiv 2112.01071).

        Returns:
            (B, C, h, w), unit length over C unless `normalize=False`.

        Raises:
            ValueError: see `grid_size`; an unknown readout.
        """
        name = with_readout("dense", readout)
        return self.encode_regions(images, outputs=(name,), normalize=normalize)[name]

    def encode_boxes(
        self,
        images: Tensor,
        boxes: Sequence[Tensor],
        mode: str = "align",
        *,
        normalize: bool = True,
        readout: Readout = "value_residual",
    ) -> Tensor:
        """Box features.

        Args:
            images: (B, 3, H, W) normalised pixels.
            boxes: B tensors (n_i, 4), XYXY in [0, 1] of the image.
            mode: "align" pools the unit-length dense map (RoIAlign 1x1); "attention" lets the class
                token attend inside the box only (ResNets: RoIAlign of the last map, then the
                attention pool).

        Returns:
            (R, C) in the order of the images, unit length unless `normalize=False`.

        Raises:
            ValueError: wrong boxes, mode or readout, or a tower without attention readout.
        """
        name = "boxes_attention" if is_attention(mode, "align") else with_readout("boxes", readout)
        return self.encode_regions(images, boxes=boxes, outputs=(name,), normalize=normalize)[name]

    def encode_masks(
        self,
        images: Tensor,
        masks: Sequence[Tensor],
        mode: str = "mean",
        *,
        normalize: bool = True,
        readout: Readout = "value_residual",
    ) -> Tensor:
        """Mask features.

        Args:
            images: (B, 3, H, W) normalised pixels.
            masks: B tensors (n_i, h, w), bool or 0/1, on the patch grid (`grid_size`).
            mode: "mean" averages the unit-length dense map inside the mask; "attention" as in
                `encode_boxes`.

        Returns:
            (R, C); an empty mask gives zeros in mode "mean" and the class token alone in mode
            "attention".

        Raises:
            ValueError: wrong masks, mode or readout, or a tower without attention readout.
        """
        name = "masks_attention" if is_attention(mode, "mean") else with_readout("masks", readout)
        return self.encode_regions(images, masks=masks, outputs=(name,), normalize=normalize)[name]

    def encode_regions(
        self,
        images: Tensor,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        outputs: Sequence[str] = ("boxes", "masks"),
        *,
        normalize: bool = True,
    ) -> dict[str, Tensor]:
        """Several features from ONE forward of the tower; every other `encode_*` for images is a
        case of this.

        Args:
            images: (B, 3, H, W) normalised pixels.
            boxes, masks: as in `encode_boxes` and `encode_masks`; needed for the outputs that are
                named after them.
            outputs: any of "image" (B, C); "dense", "dense_value" (B, C, h, w); "boxes",
                "boxes_value", "boxes_attention", "masks", "masks_value", "masks_attention" (R, C).

        Raises:
            ValueError: an unknown output, a missing argument, or any error of the single functions.
        """
        check_outputs(outputs, boxes, masks)
        grid = self.grid_size(images.shape[-2], images.shape[-1])
        if boxes is not None:
            check_boxes(boxes, images.shape[0])
        if masks is not None:
            check_masks(masks, images.shape[0], grid)
        covered = images[..., : grid[0] * self.stride, : grid[1] * self.stride]
        regions = self._regions_that_attend(outputs, boxes, masks, grid)
        allowed = None if regions is None else regions.allowed.to(covered.device, non_blocking=True)
        stem = self.tower.stem(covered.to(self.dtype), allowed)
        maps = {
            readout: F.normalize(self.tower.dense(stem, readout), dim=1)
            for readout, suffix in zip(READOUTS, ("", "_value"))
            if any(
                f"{kind}{suffix}" in outputs and (kind != "dense" or normalize)
                for kind in ("dense", "boxes", "masks")
            )
        }
        found = {}
        for name in outputs:
            kind, _, suffix = name.partition("_")
            readout = "value" if suffix == "value" else "value_residual"
            if kind == "image":
                found[name] = self.tower.image(stem)
            elif kind == "dense":
                found[name] = maps[readout] if normalize else self.tower.dense(stem, readout)
            elif suffix != "attention":
                found[name] = (
                    pool_boxes(maps[readout], boxes)
                    if kind == "boxes"
                    else pool_masks(maps[readout], masks)
                )
            elif kind == "boxes" and self.tower.aligns_boxes:
                found[name] = self.tower.align(stem, list(boxes))
        if regions is not None:
            found.update(regions.split(self.tower.attend(stem, allowed)))
        if normalize:
            found = {
                n: x if n.startswith("dense") else F.normalize(x, dim=-1) for n, x in found.items()
            }
        return found

    def forward(
        self,
        images: Tensor,
        boxes: Sequence[Tensor] | None = None,
        masks: Sequence[Tensor] | None = None,
        outputs: Sequence[str] = ("boxes", "masks"),
        *,
        normalize: bool = True,
    ) -> dict[str, Tensor]:
        """The same as `encode_regions`, so that hooks and engines see a call of the module."""
        return self.encode_regions(images, boxes, masks, outputs, normalize=normalize)

    def _regions_that_attend(
        self, outputs, boxes, masks, grid: tuple[int, int]
    ) -> PackedRegions | None:
        """Boxes and masks whose class tokens go through the tower together, or None."""
        rows = {}
        if "boxes_attention" in outputs and not self.tower.aligns_boxes:
            rows["boxes_attention"] = [
                box_patch_masks(b, grid, self.box_patches).flatten(1) for b in boxes
            ]
        if "masks_attention" in outputs:
            rows["masks_attention"] = [m.flatten(1).bool() for m in masks]
        return pack_regions(rows) if rows else None

    # Training

    def freeze(self, unlocked_blocks: int, path: str = "all") -> list[str]:
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
        self._norms_frozen = True
        names = freeze_model(self, unlocked_blocks, path)
        self.train(self.training)
        return names

    def train(self, mode: bool = True) -> "RegionModel":
        super().train(mode)
        if self._norms_frozen:
            for norm in norm_layers(self.visual):
                norm.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass: less memory, about a third more time, the
        same numbers."""
        self.tower.grad_checkpointing = enable

    def trainable_parameter_names(self) -> list[str]:
        return [name for name, p in self.named_parameters() if p.requires_grad]

    def direct_parameters(self, *, attention: bool = False) -> list[nn.Parameter]:
        """Parameters that are read outside the forward of the module that owns them.

        Engines that take weights away between forwards (ZeRO-3) must know them; mode "attention"
        reads more.
        """
        owners = [self.clip, self.visual, getattr(self.visual, "trunk", None)]
        direct = [p for m in owners if m is not None for p in m.parameters(recurse=False)]
        direct += [
            p for m in self.tower.direct_modules(attention=attention) for p in m.parameters()
        ]
        return list({id(p): p for p in direct}.values())

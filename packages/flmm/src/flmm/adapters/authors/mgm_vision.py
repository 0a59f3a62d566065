"""The vision part of Mini-Gemini (arXiv 2403.18814): CLIP's tokens look closer at a fine map.

A CLIP tower gives one query for each patch. A ConvNeXt gives a fine map of the same image at a
higher resolution. Each query attends to its own window of that map.

Letters: B images, V views of an image (tiles and the whole), q queries of a view, A side of the
image in pixels, P side of CLIP's image, S side of the fine map, w side of a window, C channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class MiniGeminiSizes:
    """Sizes of Mini-Gemini's images.

    image_size: P, of the CLIP tower. patch_size: of its patches. aux_size: A. tiles: CLIP sees
    tiles * tiles parts of the image. whole: and then the whole image, whose tokens come first.
    layer: hidden state of the CLIP tower that gives the queries; -2 is before its last layer.

    Raises:
        ValueError: several tiles without, or one tile with a whole image next to it, which no
            released model has.
    """

    image_size: int
    patch_size: int
    aux_size: int
    tiles: int = 1
    whole: bool = False
    layer: int = -2

    def __post_init__(self) -> None:
        if (self.tiles > 1) != self.whole or self.tiles < 1:
            raise ValueError(
                f"image_grid={self.tiles} with image_global={self.whole}: Mini-Gemini has 1 and "
                "False, or (HD) 2 and True"
            )

    @property
    def side(self) -> int:
        """Queries along each side of a view."""
        return self.image_size // self.patch_size


class MiniGeminiVision(nn.Module):
    """Pixels (B, 3, A, A) to features (B, V * q, D).

    Args:
        tower: a CLIPVisionModel of transformers.
        fine: a ConvNeXt of timm, of which stem and stages run.
        mining: see `WindowAttention`.
        projector: to the width of the language model.
        sizes: of the images.
        scale: factor of the features, as the language model scales its word embeddings.
    """

    def __init__(
        self,
        *,
        tower: Any,
        fine: Any,
        mining: "WindowAttention",
        projector: nn.Module,
        sizes: MiniGeminiSizes,
        scale: float = 1.0,
    ):
        super().__init__()
        self.tower = tower
        self.fine = fine
        self.mining = mining
        self.projector = projector
        self.sizes = sizes
        self.scale = scale

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the features of the whole image, if there are tiles, then those of the tiles."""
        features = self.project(pixel_values)
        # The factor is rounded to the dtype first, as the language model does.
        return features * torch.tensor(self.scale, dtype=features.dtype, device=features.device)

    def project(self, pixel_values: Tensor) -> Tensor:
        """Return the features (B, V * q, D) before they are scaled."""
        views = self.views(pixel_values)  # (B, V, 3, P, P)
        count = views.shape[1]
        states = self.tower(views.flatten(0, 1), output_hidden_states=True).hidden_states
        queries = states[self.sizes.layer][:, 1:]  # without the class token
        maps = self.fine_maps(pixel_values)  # (B, V, C, S / tiles, S / tiles)
        mined = self.mining(queries, maps.flatten(0, 1))
        features: Tensor = self.projector(mined)
        return features.unflatten(0, (-1, count)).flatten(1, 2)

    def views(self, pixel_values: Tensor) -> Tensor:
        """Make CLIP's images (B, V, 3, P, P) of the large one: the whole first, tiles row-major."""
        size, tiles = self.sizes.image_size, self.sizes.tiles
        large = _resize_maps(pixel_values, size * tiles)
        if not self.sizes.whole:
            return large[:, None]
        return torch.cat([_resize_maps(large, size)[:, None], _split(large, tiles)], dim=1)

    def fine_maps(self, pixel_values: Tensor) -> Tensor:
        """Make the fine map of each view: (B, V, C, S / tiles, S / tiles)."""
        stages = [self.fine.stem(pixel_values)]
        for stage in self.fine.stages:
            stages.append(stage(stages[-1]))
        side = stages[1].shape[-1]
        fine = torch.cat([_resize_maps(stage, side) for stage in stages[1:]], dim=1)  # (B, C, S, S)
        if not self.sizes.whole:
            return fine[:, None]
        whole = _resize_maps(fine, side // self.sizes.tiles)
        return torch.cat([whole[:, None], _split(fine, self.sizes.tiles)], dim=1)


class WindowAttention(nn.Module):
    """Queries that attend to their windows of a fine map, with one head.

    Args:
        width: C of the queries. fine_width: C of the fine map.
    """

    def __init__(self, width: int, fine_width: int):
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.key = nn.Sequential(nn.LayerNorm(fine_width), nn.Linear(fine_width, width))
        self.value = nn.Sequential(nn.LayerNorm(fine_width), nn.Linear(fine_width, width))

    def forward(self, queries: Tensor, maps: Tensor) -> Tensor:
        """Add to each query (B, q, C) the result of its attention to its window of the maps (B, C',
        S, S)."""
        side = round(queries.shape[1] ** 0.5)
        cells = maps.unflatten(3, (side, -1)).unflatten(2, (side, -1))  # (B, C', s, w, s, w)
        windows = cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # (B, q, w * w, C')

        keys = self.key(windows)
        scores = self.query(queries)[:, :, None] @ (keys.transpose(2, 3) / keys.shape[3] ** 0.5)
        weights = scores.nan_to_num().softmax(-1)  # (B, q, 1, w * w)
        return queries + (weights @ self.value(windows))[:, :, 0]


def _resize_maps(maps: Tensor, side: int) -> Tensor:
    """Resize square maps (B, C, n, n) bilinearly, in float32 and without antialiasing."""
    if maps.shape[-1] == side:
        return maps
    resized = F.interpolate(maps.float(), (side, side), mode="bilinear", align_corners=False)
    return resized.to(maps.dtype)


def _split(maps: Tensor, tiles: int) -> Tensor:
    """Split square maps (B, C, n, n) into tiles (B, tiles * tiles, C, m, m), row by row."""
    parts = maps.unflatten(3, (tiles, -1)).unflatten(2, (tiles, -1))  # (B, C, r, m, c, m)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)

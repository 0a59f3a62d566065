"""How the tokens of an image lie on it.

Letters: N phrases, C attention channels (layers x heads), t tokens of an image, h w a grid of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.frames import ImageFrame


@dataclass(frozen=True)
class ImageLayout:
    """Grids of token numbers, each a view of the whole image; the last one is the finest.

    grids: int64 (h_i, w_i), which of the image's tokens covers a cell. Tokens that cover none
    (newlines) are in none. tokens: number t of the image's tokens.
    padding: where the image lies in the grids, None where they cover exactly the image.
    """

    grids: tuple[Tensor, ...]
    tokens: int
    padding: ImageFrame | None = None

    def arrange(self, columns: Tensor) -> Tensor:
        """Attention (N, C, t) to the image's tokens -> maps (N, C * grids, h, w) float32 on the
        finest grid.

        All channels of the first grid come first; coarser grids are enlarged bilinearly.
        """
        size = tuple(self.grids[-1].shape)
        maps = [
            columns[..., grid.to(columns.device)].float() for grid in self.grids
        ]  # each (N, C, h_i, w_i)
        return torch.cat([m if m.shape[-2:] == size else _enlarge(m, size) for m in maps], dim=1)

    def crop(self, masks: Tensor) -> Tensor:
        """Masks (N, p, q) over the padded frame, at any resolution -> the image's part of them."""
        return masks if self.padding is None else self.padding.crop(masks)


def single_grid(height: int, width: int, *, padding: ImageFrame | None = None) -> ImageLayout:
    """Layout of h * w tokens, row by row."""
    return ImageLayout((grid_of_tokens(0, height, width),), height * width, padding)


def grid_of_tokens(first: int, height: int, width: int) -> Tensor:
    """(h, w) numbers of tokens that lie row by row, beginning with `first`."""
    return first + torch.arange(height * width).view(height, width)


def tiled_grid(first: int, *, tiles: tuple[int, int], side: int) -> Tensor:
    """Numbers of tokens that come tile by tile, each tile side x side row by row -> (rows * side,
    columns * side)."""
    rows, columns = tiles
    numbers = first + torch.arange(rows * columns * side * side).view(rows, columns, side, side)
    return numbers.transpose(1, 2).reshape(rows * side, columns * side)


def with_newlines(coarse: tuple[int, int], fine: tuple[int, int]) -> ImageLayout:
    """LLaVA-NeXT's order: the whole image's grid, then the tiles' joint grid with a newline token
    after each row."""
    height, width = fine
    first = coarse[0] * coarse[1]
    rows = grid_of_tokens(first, height, width + 1)
    return ImageLayout((grid_of_tokens(0, *coarse), rows[:, :-1]), first + rows.numel())


def unpadded_size(frame: tuple[int, int], image: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) that transformers' models keep of a grid of features after cutting the
    padding off."""
    from transformers.models.llava_next.modeling_llava_next import unpad_image  # seconds to import

    return tuple(unpad_image(torch.empty(1, *frame), tuple(image)).shape[1:])


def _enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

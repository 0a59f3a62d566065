"""Layouts: the places of an image's tokens on the image.

Letters: N phrases, C attention channels (layers x heads), t tokens of an image, h w a grid of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.frames import ImageFrame
from flmm.attention.capture import merge_tokens
from flmm.text.tokens import TextEncoder
from flmm.transformers_compat import unpadded_grid


@dataclass(frozen=True)
class ImageLayout:
    """Grids of token numbers, each a view of the whole image; the last one is the finest.

    grids: int64 (h_i, w_i), the number of the image token that covers each cell. Tokens that cover
    no cell (newlines) are in no grid.
    tokens: number t of the image's tokens.
    padding: the place of the image in the grids, None where they cover exactly the image.
    heads: number of maps of one layer, where the grids of each layer are together (Mini-Gemini in
    HD); None puts all channels of a grid together.
    merge_last: tokens of a phrase are merged after their maps are enlarged, which "max" can see.
    text: the image's part of a prompt, with t image tokens, where marks of rows or tiles are
    between them; None for the image token, t times.
    """

    grids: tuple[Tensor, ...]
    tokens: int
    padding: ImageFrame | None = None
    heads: int | None = None
    merge_last: bool = False
    text: str | None = None

    def ids(self, image_token_id: int, tokenizer: TextEncoder | None) -> Tensor:
        """Return the int64 ids of the image in a prompt.

        Raises:
            ValueError: there are marks and no tokenizer, or the tokenizer does not know the image
                token.
        """
        if self.text is None:
            return torch.full((self.tokens,), image_token_id)
        if tokenizer is None:
            raise ValueError(
                "this LMM marks rows or tiles of an image by words: pass its tokenizer to build_lmm"
            )
        ids = torch.tensor(tokenizer.encode(self.text, add_special_tokens=False))
        found = int((ids == image_token_id).sum())
        if found != self.tokens:
            raise ValueError(
                f"the tokenizer makes {found} image tokens of an image of {self.tokens}: use the "
                "LMM's own tokenizer"
            )
        return ids

    def arrange(self, columns: Tensor) -> Tensor:
        """Arrange attention (N, C, t) to the image's tokens as maps on the finest grid.

        Returns:
            float32 (N, C * grids, h, w), coarser grids enlarged bilinearly. All channels of the
            first grid come first, or those of its first layer (see `heads`).
        """
        height, width = self.grids[-1].shape
        maps = []
        for grid in self.grids:
            values = columns[..., grid.to(columns.device)].float()  # (N, C, h_i, w_i)
            if values.shape[-2:] != (height, width):
                values = F.interpolate(
                    values, size=(height, width), mode="bilinear", align_corners=False
                )
            maps.append(values)
        if self.heads is None:
            return torch.cat(maps, dim=1)
        by_layer = [values.unflatten(1, (-1, self.heads)) for values in maps]  # (N, L, H, h, w)
        return torch.cat(by_layer, dim=2).flatten(1, 2)

    def merge(self, rows: Tensor, lengths: Sequence[int], merge: str) -> Tensor:
        """Merge attention (T, C, t) of the tokens of N phrases, and arrange it.

        Args:
            lengths: tokens of each phrase, whose sum is T.
            merge: "mean" or "max" over the tokens of a phrase.

        Returns:
            float32 (N, C * grids, h, w), as `arrange`.
        """
        if not self.merge_last:
            return self.arrange(merge_tokens(rows.transpose(0, 1), lengths, merge).transpose(0, 1))
        arranged = self.arrange(rows).transpose(0, 1)  # (C * grids, T, h, w)
        merged = merge_tokens(arranged.flatten(2), lengths, merge)
        return merged.unflatten(2, arranged.shape[2:]).transpose(0, 1)

    def crop(self, masks: Tensor) -> Tensor:
        """Cut masks (N, p, q) over the padded frame, at any resolution, to the image."""
        return masks if self.padding is None else self.padding.crop(masks)


def single_grid(height: int, width: int, *, padding: ImageFrame | None = None) -> ImageLayout:
    """Lay out h * w tokens, row by row."""
    return ImageLayout((grid_of_tokens(0, height, width),), height * width, padding)


def grid_of_tokens(first: int, height: int, width: int) -> Tensor:
    """Number tokens (h, w) that lie row by row, beginning with `first`."""
    return first + torch.arange(height * width).view(height, width)


def tiled_grid(first: int, *, tiles: tuple[int, int], side: int) -> Tensor:
    """Number tokens that come tile by tile, each tile `side` x `side` and row by row.

    Returns:
        (rows * side, columns * side), beginning with `first`.
    """
    rows, columns = tiles
    numbers = first + torch.arange(rows * columns * side * side).view(rows, columns, side, side)
    return numbers.transpose(1, 2).reshape(rows * side, columns * side)


def with_newlines(coarse: tuple[int, int], fine: tuple[int, int]) -> ImageLayout:
    """Lay out tokens in LLaVA-NeXT's order.

    The whole image's grid comes first, then the joint grid of the tiles, with a newline token after
    each row. Both sizes are (rows, columns).
    """
    height, width = fine
    first = coarse[0] * coarse[1]
    rows = grid_of_tokens(first, height, width + 1)
    return ImageLayout((grid_of_tokens(0, *coarse), rows[:, :-1]), first + rows.numel())


def unpadded_size(frame: tuple[int, int], image: Sequence[int]) -> tuple[int, int]:
    """Return the (rows, columns) that LLaVA-NeXT keeps of a padded grid of features.

    Args:
        frame: (rows, columns) of the padded grid.
        image: (H, W) of the image in pixels.
    """
    height, width = image
    return unpadded_grid(frame, (height, width))

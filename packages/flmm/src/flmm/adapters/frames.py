"""The pixels of an image for an LMM, and the place of the image in them.

Every family scales and pads in its own way, and masks follow the image. So each preparer returns
the pixels together with an `ImageFrame`. Pixels are resized by Pillow, like the processors that the
published checkpoints were trained with.

Letters: H W original size, h w size of the image inside the padded frame, P Q size of the padded
frame, T side of a square or tile, all in pixels; N masks or maps.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageFrame:
    """The place of an image in the padded frame that the LMM sees.

    All sizes are (height, width) in pixels. image_size: of the original. content_size: of the
    resized image in the frame. padded_size: of the whole frame. top, left: of the content in the
    frame.
    """

    image_size: tuple[int, int]
    content_size: tuple[int, int]
    padded_size: tuple[int, int]
    top: int = 0
    left: int = 0

    @classmethod
    def whole(cls, image_size: tuple[int, int]) -> "ImageFrame":
        """Make the frame of an LMM that pads nothing: the image fills it."""
        return cls(image_size, image_size, image_size)

    @classmethod
    def centred(
        cls,
        image_size: tuple[int, int],
        content_size: tuple[int, int],
        padded_size: tuple[int, int],
    ) -> "ImageFrame":
        """Put the image in the middle; an odd remainder goes to the bottom and the right."""
        top, left = ((outer - inner) // 2 for outer, inner in zip(padded_size, content_size))
        return cls(image_size, content_size, padded_size, top, left)

    def window(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the content in a map over the padded frame.

        Offsets are truncated and sizes rounded, as F-LMM does: the window can miss the content by
        up to one cell.

        Args:
            size: (rows, columns) of the map, in cells.
        """
        rows, columns = size
        height, width = self.content_size
        tall, wide = self.padded_size
        top = int(self.top * rows / tall)
        left = int(self.left * columns / wide)
        height = int(height * rows / tall + 0.5)
        width = int(width * columns / wide + 0.5)
        return top, left, max(height, 1), max(width, 1)

    def crop(self, maps: Tensor) -> Tensor:
        """Cut the padding off maps (..., p, q) over the padded frame."""
        top, left, height, width = self.window((maps.shape[-2], maps.shape[-1]))
        return maps[..., top : top + height, left : left + width]

    def resize_masks(self, masks: Tensor) -> Tensor:
        """Resize masks (N, H, W) of the original image to the content's size (N, h, w).

        Nearest neighbour; the dtype stays.
        """
        if masks.shape[-2:] == self.content_size:
            return masks
        resized = F.interpolate(masks[None].float(), size=self.content_size, mode="nearest")[0]
        return resized.to(masks.dtype)  # (N, h, w)


@dataclass(frozen=True)
class PreparedImage:
    """The inputs of an LMM for one image.

    inputs: model arguments without a batch axis: "pixel_values" float32 (3, T, T) or (1 + tiles, 3,
    T, T), and for the families that have it "high_res_pixel_values" (3, S, S).
    frame: the place of the image in them.
    """

    inputs: dict[str, Tensor]
    frame: ImageFrame

    @property
    def pixel_values(self) -> Tensor:
        """The pixels that every family has."""
        return self.inputs["pixel_values"]

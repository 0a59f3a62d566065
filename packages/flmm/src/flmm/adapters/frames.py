"""From an image to the pixels an LMM sees, and where the image lies in them.

Every family scales and pads in its own way; masks follow the image, so each maker returns the
pixels together with an `ImageFrame`. Pixels are resized by Pillow, like the processors that the
published checkpoints were trained with.

Letters: H W original size, h w size of the image inside the padded frame, P Q size of the padded
frame, T side of a square or tile, all in pixels; N masks or maps.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageFrame:
    """Where an image lies in the padded frame that the LMM sees; all sizes are (height, width) in
    pixels.

    image_size: of the original. content_size: of the resized image in the frame. padded_size: of
    the whole frame. top, left: of the content in the frame.
    """

    image_size: tuple[int, int]
    content_size: tuple[int, int]
    padded_size: tuple[int, int]
    top: int = 0
    left: int = 0

    @classmethod
    def whole(cls, image_size: tuple[int, int]) -> "ImageFrame":
        """Frame of an LMM that pads nothing: the image fills it."""
        return cls(image_size, image_size, image_size)

    @classmethod
    def centred(
        cls,
        image_size: tuple[int, int],
        content_size: tuple[int, int],
        padded_size: tuple[int, int],
    ) -> "ImageFrame":
        """Frame with the image in the middle; an odd remainder goes to the bottom and the right."""
        top, left = ((outer - inner) // 2 for outer, inner in zip(padded_size, content_size))
        return cls(image_size, content_size, padded_size, top, left)

    def window(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the content in a map of `size` (cells) over the padded
        frame.

        Offsets are truncated and sizes rounded, as F-LMM does: the window can miss the content by
        up to one cell.
        """
        (ph, pw), (height, width) = size, self.content_size
        tall, wide = self.padded_size
        top, left = int(self.top * ph / tall), int(self.left * pw / wide)
        height, width = int(height * ph / tall + 0.5), int(width * pw / wide + 0.5)
        return top, left, max(height, 1), max(width, 1)

    def crop(self, maps: Tensor) -> Tensor:
        """Cut the padding off maps (..., p, q) over the padded frame."""
        top, left, height, width = self.window((maps.shape[-2], maps.shape[-1]))
        return maps[..., top : top + height, left : left + width]

    def resize_masks(self, masks: Tensor) -> Tensor:
        """Masks (N, H, W) of the original image at the content's size (N, h, w), nearest neighbour,
        same dtype."""
        if masks.shape[-2:] == self.content_size:
            return masks
        shrunk = F.interpolate(masks[None].float(), size=self.content_size, mode="nearest")[
            0
        ]  # (N, h, w)
        return shrunk.to(masks.dtype)


@dataclass(frozen=True)
class PreparedImage:
    """One image as an LMM takes it.

    inputs: model arguments without a batch axis, "pixel_values" float32 (3, T, T) or (1 + tiles, 3,
    T, T), and for the
        families that have it "high_res_pixel_values" (3, S, S).
    frame: where the image is in them.
    """

    inputs: dict[str, Tensor]
    frame: ImageFrame

    @property
    def pixel_values(self) -> Tensor:
        return self.inputs["pixel_values"]

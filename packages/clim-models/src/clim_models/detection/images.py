"""From pictures of any size to the input of a detector, and boxes back to the picture.

Letters: B pictures, h w pixels after resizing, H W pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageRules:
    """Rules that make the input of a detector of a picture.

    Attributes:
        size: the longest side after resizing, and both sides of the padded square.
        mean, std: of RGB in [0, 1].
        padding: RGB of the padding after normalising.
        round_pixels: whether resized pixels are rounded to whole grey levels.
        clip_to_padding: whether boxes may reach into the padding, instead of ending at the picture.

    Raises:
        ValueError: a size below 1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: tuple[float, float, float] = (0.0, 0.0, 0.0)
    round_pixels: bool = True
    clip_to_padding: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}; pass a side in pixels, at least 1")


@dataclass(frozen=True)
class ImageFrame:
    """Sizes of a picture on its way to the network, each (height, width).

    Attributes:
        original: of the picture.
        content: of the resized picture, in the upper left corner of the input.
        padded: of the network input.
    """

    original: tuple[int, int]
    content: tuple[int, int]
    padded: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels per picture pixel, horizontally and vertically."""
        return (self.content[1] / self.original[1], self.content[0] / self.original[0])

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Convert boxes (n, 4) from network pixels to picture pixels."""
        return boxes / boxes.new_tensor(self.scale * 2)

    def to_network(self, boxes: Tensor) -> Tensor:
        """Convert boxes (n, 4) from picture pixels to network pixels."""
        return boxes * boxes.new_tensor(self.scale * 2)


def fitted_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Compute the size of a picture whose longest side becomes `longest`.

    Args:
        size: (height, width).
        longest: the new longest side.

    Returns:
        (height, width), rounded half up, at least 1.
    """
    return scaled_size(size, longest / max(size))


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Multiply (height, width) by a factor, rounded half up, at least 1."""
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    return height, width


def resize_pixels(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) bilinearly without antialiasing: float32 (C, h, w), not rounded."""
    if pixels.shape[-2:] == size:
        return pixels.float()
    return F.interpolate(pixels[None].float(), size, mode="bilinear", align_corners=False)[0]


def normalize_and_pad(pixels: Tensor, rules: ImageRules) -> Tensor:
    """Normalise resized pixels and pad them at the right and bottom.

    Args:
        pixels: (3, h, w) RGB from 0 to 255, no side longer than `rules.size`.

    Returns:
        (3, S, S) float32.
    """
    mean = pixels.new_tensor(rules.mean, dtype=torch.float32)[:, None, None] * 255
    std = pixels.new_tensor(rules.std, dtype=torch.float32)[:, None, None] * 255
    padding = pixels.new_tensor(rules.padding, dtype=torch.float32)[:, None, None]
    side = rules.size

    canvas = padding.expand(3, side, side).clone()
    canvas[:, : pixels.shape[1], : pixels.shape[2]] = (pixels.float() - mean) / std
    return canvas


def check_pictures(pictures: Sequence[Tensor]) -> None:
    """Refuse values that are not pictures.

    Raises:
        ValueError: no picture, or one that is not uint8 (3, height, width).
    """
    if not len(pictures):
        raise ValueError("pass a list of at least one picture, uint8 (3, height, width) each")
    for i, picture in enumerate(pictures):
        if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
            raise ValueError(
                f"picture {i} is {picture.dtype} of shape {tuple(picture.shape)}; "
                "pass uint8 RGB (3, height, width)"
            )


def prepare_images(
    pictures: Sequence[Tensor], rules: ImageRules
) -> tuple[Tensor, list[ImageFrame]]:
    """Resize, normalise and pad pictures of any sizes.

    Args:
        pictures: B uint8 RGB tensors (3, height, width).
        rules: see `ImageRules`.

    Returns:
        Images (B, 3, S, S), and the sizes of each.

    Raises:
        ValueError: no picture, or one that is not uint8 (3, height, width).
    """
    if isinstance(pictures, Tensor):
        raise ValueError("pass a list of at least one picture, uint8 (3, height, width) each")
    check_pictures(pictures)
    images, frames = [], []
    for picture in pictures:
        original = (picture.shape[1], picture.shape[2])
        content = fitted_size(original, rules.size)
        resized = resize_pixels(picture, content)
        images.append(normalize_and_pad(resized.round() if rules.round_pixels else resized, rules))
        frames.append(ImageFrame(original, content, (rules.size, rules.size)))
    return torch.stack(images), frames


def prepare_views(images: Tensor, windows: Tensor, rules: ImageRules) -> tuple[Tensor, Tensor]:
    """Normalise a batch of training views and fill the pixels outside the pictures.

    Nothing waits for the device.

    Args:
        images: uint8 RGB (B, 3, S, S).
        windows: (B, 4), left, top, right, bottom of the picture in each image.
        rules: statistics and padding.

    Returns:
        Images (B, 3, S, S) float32, and the limits (B, 2) of `TwoStageDetector.losses`.
    """
    statistics = torch.tensor([rules.mean, rules.std, rules.padding])[:, None, :, None, None]
    mean, std, padding = statistics.to(images.device, non_blocking=True)
    normal = (images.float() / 255 - mean) / std

    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    left, top, right, bottom = windows.to(images.device)[:, :, None, None].unbind(1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    limits = torch.stack([bottom, right], 1)[:, :, 0, 0].float()
    if rules.clip_to_padding:
        limits = torch.full_like(limits, height)
        limits[:, 1] = width
    return torch.where(inside[:, None], normal, padding), limits

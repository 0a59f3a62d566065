"""Pictures as a batch with the size of the largest.

Letters: B pictures, h w pixels after resizing, H W pixels of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_models.detection.images import (
    ImageFrame,
    check_pictures,
    resize_pixels,
    scaled_size,
)


@dataclass(frozen=True)
class BatchRules:
    """Rules that make a batch of pictures.

    Attributes:
        mean, std: of the channels, in grey levels from 0 to 255, in the order of the network.
        bgr: whether the network reads blue first.
        short, long: the short side becomes `short`, unless the long one were above `long` then.
        multiple: both sides of the batch are a multiple of it.

    Raises:
        ValueError: a size below 1, or sides out of order.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    short: int = 800
    long: int = 1333
    multiple: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.short <= self.long or self.multiple < 1:
            raise ValueError(
                f"short={self.short}, long={self.long}, multiple={self.multiple}; "
                "pass numbers of at least 1, the short side first"
            )


def short_side_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """Compute the size of a picture whose short side becomes `short` and whose long one fits.

    Args:
        size: (height, width).
        short, long: the new short side, and the limit of the long one.

    Returns:
        (height, width), rounded half up, at least 1.
    """
    return scaled_size(size, min(long / max(size), short / min(size)))


def stack_images(pixels: Sequence[Tensor], rules: BatchRules) -> Tensor:
    """Normalise resized pictures and pad them with zeros at the right and bottom.

    Args:
        pixels: B RGB tensors (3, h, w) from 0 to 255.
        rules: statistics and order of channels.

    Returns:
        (B, 3, H, W) float32.
    """
    sides = torch.tensor([image.shape[-2:] for image in pixels]).amax(0)
    height, width = ((sides + rules.multiple - 1) // rules.multiple * rules.multiple).tolist()
    mean, std = torch.tensor([rules.mean, rules.std], device=pixels[0].device)[:, :, None, None]
    batch = torch.zeros(len(pixels), 3, height, width, device=pixels[0].device)
    for place, image in zip(batch, pixels, strict=True):
        ordered = image.flip(0) if rules.bgr else image
        place[:, : image.shape[1], : image.shape[2]] = (ordered.float() - mean) / std
    return batch


def prepare_padded(images: Tensor, windows: Tensor, rules: BatchRules) -> tuple[Tensor, Tensor]:
    """Normalise a batch of training views; pixels outside the pictures become 0.

    Nothing waits for the device.

    Args:
        images: uint8 RGB (B, 3, H, W).
        windows: (B, 4), left, top, right, bottom of the picture in each image; left and top are 0.
        rules: statistics and order of channels.

    Returns:
        Images (B, 3, H, W) float32, and height and width of each picture, (B, 2) float32.
    """
    statistics = torch.tensor([rules.mean, rules.std])[:, None, :, None, None]
    mean, std = statistics.to(images.device, non_blocking=True)
    ordered = images.flip(1) if rules.bgr else images
    normal = (ordered.float() - mean) / std

    rows = torch.arange(images.shape[2], device=images.device)[:, None]
    columns = torch.arange(images.shape[3], device=images.device)
    # Not by a list of columns: a list is copied to the device, which waits.
    _, _, right, bottom = windows.to(images.device).unbind(1)
    inside = (rows < bottom[:, None, None]) & (columns < right[:, None, None])  # (B, H, W)
    limits = torch.stack([bottom, right], 1).float()
    return normal * inside[:, None], limits


def prepare_batch(pictures: Sequence[Tensor], rules: BatchRules) -> tuple[Tensor, list[ImageFrame]]:
    """Resize, normalise and pad pictures of any sizes.

    Args:
        pictures: B uint8 RGB tensors (3, height, width).
        rules: see `BatchRules`.

    Returns:
        Images (B, 3, H, W), and the sizes of each.

    Raises:
        ValueError: no picture, or one that is not uint8 (3, height, width).
    """
    check_pictures(pictures)
    pixels = []
    for picture in pictures:
        size = short_side_size((picture.shape[1], picture.shape[2]), rules.short, rules.long)
        pixels.append(resize_pixels(picture, size).round())
    images = stack_images(pixels, rules)
    frames = []
    for picture, resized in zip(pictures, pixels, strict=True):
        sizes = [(image.shape[-2], image.shape[-1]) for image in (picture, resized, images)]
        frames.append(ImageFrame(*sizes))
    return images, frames


def content_limits(frames: Sequence[ImageFrame], device: torch.device) -> Tensor:
    """Return height and width of each resized picture: (B, 2) float32."""
    sizes = torch.tensor([frame.content for frame in frames], dtype=torch.float32)
    return sizes.to(device, non_blocking=True)

"""Augmentation of a whole batch of RGBA drawings at once, on tensors: affine warp, background,
colour jitter.

Letters: B drawings, H W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def warp_drawings(
    drawings: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.55, 1.05),
    degrees: float = 15.0,
) -> Tensor:
    """Scale, rotate, shift and mirror each drawing at random inside its frame.

    drawings: premultiplied float RGBA (B, 4, H, W) in [0, 1]; so is the result, transparent where
    nothing was drawn.
    """
    n, device = len(drawings), drawings.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, device=device).uniform_(low, high, generator=generator)

    size = uniform(*scale)
    angle = uniform(-degrees, degrees) * math.pi / 180
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    room = (1.1 - size).clamp(min=0)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    # affine_grid maps output coordinates in [-1, 1] to input coordinates, hence the division by the
    # size.
    theta = torch.stack(
        [
            cos * mirror,
            -sin * mirror,
            uniform(-1, 1) * room / size,
            sin,
            cos,
            uniform(-1, 1) * room / size,
        ],
        1,
    )
    grid = F.affine_grid(theta.view(n, 2, 3), list(drawings.shape), align_corners=False)
    return F.grid_sample(drawings, grid, align_corners=False)


def random_backgrounds(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw backgrounds (n, 3, size, size) in [0, 1]: white, plain, smooth blends and coarse noise,
    chosen at random."""
    device = generator.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    plain = rand(n, 3, 1, 1)
    blend = F.interpolate(rand(n, 3, 2, 2), size=(size, size), mode="bilinear", align_corners=True)
    noise = F.interpolate(
        rand(n, 3, 12, 12), size=(size, size), mode="bilinear", align_corners=False
    )
    kind = rand(n, 1, 1, 1)
    textured = plain + (noise - 0.5) * rand(n, 1, 1, 1)
    chosen = torch.where(
        kind < 0.3, plain.expand_as(blend), torch.where(kind < 0.6, blend, textured)
    )
    return torch.where(kind > 0.85, torch.ones_like(chosen), chosen).clamp(0, 1)


def jitter_colours(images: Tensor, generator: torch.Generator, strength: float = 0.4) -> Tensor:
    """Change brightness, contrast and saturation at random, of each image (B, 3, H, W) in [0,
    1]."""
    n, device = len(images), images.device

    def factor() -> Tensor:
        return torch.empty(n, 1, 1, 1, device=device).uniform_(
            1 - strength, 1 + strength, generator=generator
        )

    images = images * factor()
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * factor() + mean
    grey = images.mean(1, keepdim=True)
    return ((images - grey) * factor() + grey).clamp(0, 1)


def augment_drawings(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Turn uint8 RGBA drawings (B, 4, H, H) into augmented uint8 RGB images (B, 3, H, H) on
    random backgrounds."""
    drawings = pixels.float() / 255
    drawings = torch.cat([drawings[:, :3] * drawings[:, 3:], drawings[:, 3:]], 1)
    drawings = warp_drawings(drawings, generator)
    images = drawings[:, :3] + (1 - drawings[:, 3:]) * random_backgrounds(
        len(pixels), pixels.shape[-1], generator
    )
    return (jitter_colours(images, generator) * 255).round().to(torch.uint8)


def on_white(pixels: Tensor) -> Tensor:
    """Put uint8 RGBA drawings (B, 4, H, W) on white: uint8 RGB (B, 3, H, W)."""
    alpha = pixels[:, 3:].float() / 255
    return (pixels[:, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)

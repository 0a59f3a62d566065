"""The head that draws one mask per box, its loss, and pasting of masks into pictures.

Letters: P boxes, C channels, S = 28 side of a mask, H W pixels of the picture.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.detection.features.conv import ConvNorm
from clim_models.detection.heads.losses import Divisor, mask_loss, own_rows
from clim_models.detection.heads.targets import Annotations, SampledBoxes, mask_targets

# Sides of the window that is read of each box, and of the mask.
WINDOW = 14
MASK_SIDE = 28
# Pixels that are pasted at once: bounds the memory.
PASTED_PIXELS = 2**25


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a transposed one, and one mask for all classes together.

    Source: Mask R-CNN, arXiv 1703.06870.
    """

    def __init__(self, channels: int, inner: int | None = None, *, norm: bool = True):
        super().__init__()
        inner = inner or channels
        inputs = [channels, inner, inner, inner]
        self.convs = nn.Sequential(
            *[ConvNorm(size, inner, norm=norm, relu=True) for size in inputs]
        )
        self.upsample = nn.ConvTranspose2d(inner, inner, 2, 2)
        self.logits = nn.Conv2d(inner, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows of the pyramid into logits: (P, C, 14, 14) -> (P, 28, 28)."""
        x = self.upsample(self.convs(windows)).relu()
        found: Tensor = self.logits(x)[:, 0]
        return found


def mask_losses(
    logits: Tensor,
    sampled: Sequence[SampledBoxes],
    truths: Sequence[Annotations],
    *,
    divisor: Divisor = own_rows,
) -> Tensor:
    """Compute the loss of the masks of all positive boxes: (P, S, S) -> scalar, 0 without any."""
    targets = [torch.zeros_like(logits[:0], dtype=torch.bool)]
    for truth, one in zip(truths, sampled, strict=True):
        if truth.masks is not None and one.positives:
            targets.append(mask_targets(truth.masks, one.positive_boxes, one.owners, MASK_SIDE))
    return mask_loss(logits, torch.cat(targets), divisor=divisor)


def paste_masks(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Draw masks into a picture: bilinear samples at pixel centres, zeros outside the box.

    Args:
        probabilities: (P, S, S) from 0 to 1.
        boxes: (P, 4) XYXY in pixels of the picture.
        size: (H, W).
        threshold: least value that belongs to the mask.

    Returns:
        bool (P, H, W).
    """
    height, width = size
    step = max(PASTED_PIXELS // (height * width), 1)
    pasted = [
        _paste(some, box, size) >= threshold
        for some, box in zip(probabilities.split(step), boxes.split(step), strict=True)
    ]
    if not len(boxes):
        return torch.zeros(0, height, width, dtype=torch.bool, device=boxes.device)
    return torch.cat(pasted)


def _paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    x0, y0, x1, y1 = boxes.float()[:, :, None].unbind(1)  # (P, 1)
    rows = torch.arange(size[0], device=boxes.device) + 0.5
    columns = torch.arange(size[1], device=boxes.device) + 0.5

    # -1 and 1 are the borders of the box; a box without area has no pixel.
    y = ((rows - y0) / (y1 - y0) * 2 - 1).nan_to_num(2.0, 2.0, -2.0)  # (P, H)
    x = ((columns - x0) / (x1 - x0) * 2 - 1).nan_to_num(2.0, 2.0, -2.0)  # (P, W)
    grid = torch.stack(
        [x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=-1
    )
    found = F.grid_sample(probabilities[:, None].float(), grid, align_corners=False)
    return found[:, 0]

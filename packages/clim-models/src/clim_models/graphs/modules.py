"""The exported graphs: pixels and class vectors in, cosines out, all of variable size.

Letters: B images, H W pixels, h w positions, K classes, C channels, R boxes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from clim_models.features import Readout
from clim_models.region_model import RegionModel


class DenseGraph(nn.Module):
    """Cosines of every position with every class.

    Classes are an input: other names need other vectors (`embed_vocabulary`), and no new export.

    Args:
        model: its image tower is used; the weights are shared.
        readout: how the last layer is read.
    """

    inputs: tuple[str, ...] = ("pixels", "classes")

    def __init__(self, model: RegionModel, readout: Readout = Readout.VALUE_RESIDUAL):
        super().__init__()
        self.visual = model.visual
        self._model = (model,)
        self.readout = readout
        statistics = torch.tensor([model.image_mean, model.image_std]).view(2, 1, 3, 1, 1) * 255
        mean, std = statistics.to(model.device)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Compare positions with classes.

        Args:
            pixels: uint8 RGB (B, 3, H, W), sides that are multiples of the stride.
            classes: unit rows (K, C).

        Returns:
            (B, K, h, w).
        """
        return torch.einsum("kc,bchw->bkhw", classes, self.unit_map(pixels))

    def unit_map(self, pixels: Tensor) -> Tensor:
        """Return the dense map of unit length at each position: (B, C, h, w)."""
        (model,) = self._model
        images = (pixels.float() - self.mean) / self.std
        stem = model.tower.stem(images.to(model.dtype))
        return F.normalize(model.tower.dense(stem, self.readout).float(), dim=1)

    def examples(self, grid: tuple[int, int], sizes: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Make inputs of a grid of positions; `sizes` are the numbers of images, boxes, classes."""
        (model,) = self._model
        generator = torch.Generator().manual_seed(0)
        shape = (sizes[0], 3, grid[0] * model.stride, grid[1] * model.stride)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        classes = torch.randn(sizes[2], model.embed_dim, generator=generator)
        return pixels.to(model.device), F.normalize(classes, dim=-1).to(model.device)

    def shapes(self) -> dict[str, dict[int, object]]:
        """Return the variable sizes of each input, for `torch.export`."""
        (model,) = self._model
        rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        batch, classes = torch.export.Dim("batch"), torch.export.Dim("classes")
        sides = {2: model.stride * rows, 3: model.stride * columns}
        return {"pixels": {0: batch, **sides}, "classes": {0: classes}}


class BoxGraph(DenseGraph):
    """Cosines of boxes with classes: RoIAlign of the dense map, as `Pooled("boxes")`."""

    inputs = ("pixels", "boxes", "classes")

    def forward(  # type: ignore[override]  # boxes come in between
        self, pixels: Tensor, boxes: Tensor, classes: Tensor
    ) -> Tensor:
        """Compare boxes with classes.

        Args:
            pixels, classes: as in `DenseGraph`.
            boxes: (R, 5), number of the image and x0, y0, x1, y1 in [0, 1].

        Returns:
            (R, K).
        """
        unit = self.unit_map(pixels)
        height, width = unit.shape[-2:]
        numbers, x0, y0, x1, y1 = boxes.unbind(1)
        rois = torch.stack([numbers, x0 * width, y0 * height, x1 * width, y1 * height], dim=1)
        pooled = roi_align(unit, rois, output_size=1, sampling_ratio=-1, aligned=True).flatten(1)
        return F.normalize(pooled, dim=-1) @ classes.T

    def examples(self, grid: tuple[int, int], sizes: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Make inputs of a grid of positions, see `DenseGraph.examples`."""
        pixels, classes = super().examples(grid, sizes)
        generator = torch.Generator().manual_seed(1)
        corners = torch.rand(sizes[1], 2, generator=generator) * 0.5
        sides = 0.1 + 0.4 * torch.rand(sizes[1], 2, generator=generator)
        numbers = torch.arange(sizes[1])[:, None] % sizes[0]
        boxes = torch.cat([numbers.float(), corners, corners + sides], dim=1)
        return pixels, boxes.to(pixels.device), classes

    def shapes(self) -> dict[str, dict[int, object]]:
        """Return the variable sizes of each input, see `DenseGraph.shapes`."""
        found = super().shapes()
        boxes: dict[int, object] = {0: torch.export.Dim("boxes")}
        return {"pixels": found["pixels"], "boxes": boxes, "classes": found["classes"]}

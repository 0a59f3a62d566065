"""One forward of an image tower, from which every requested feature is read.

Letters: B images, h w positions of the map, N = h*w, Q regions of an image (padded), R regions of
all images, C embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from clim_models.features import (
    OF_MAPS,
    READOUTS,
    Attended,
    Dense,
    ImageFeature,
    Pooled,
    Readout,
    Regions,
    Request,
)
from clim_models.pooling import (
    PackedRegions,
    box_patch_masks,
    pack_regions,
    pool_boxes,
    pool_masks,
    unit_length,
)
from clim_models.towers.tower import Stem, Tower, refuse


@dataclass(frozen=True)
class RegionInputs:
    """Boxes and masks of a batch, checked, as `RegionModel.encode` takes them.

    Attributes:
        boxes: (n_i, 4) XYXY in [0, 1] of each image, or None.
        masks: (n_i, h, w) of each image on the patch grid, or None.
        box_patches: which patches belong to a box, see `box_patch_masks`.
    """

    boxes: Sequence[Tensor] | None
    masks: Sequence[Tensor] | None
    box_patches: str

    def of(self, kind: Regions) -> Sequence[Tensor]:
        """Return the regions of one kind, which `check_requests` found to be there."""
        found = self.boxes if kind == "boxes" else self.masks
        assert found is not None
        return found

    def positions(self, kind: Regions, grid: tuple[int, int]) -> list[Tensor]:
        """Return the positions of each region: bool (n_i, N) of each image."""
        if kind == "masks":
            return [mask.flatten(1).bool() for mask in self.of(kind)]
        boxes = self.of(kind)
        return [box_patch_masks(box, grid, self.box_patches).flatten(1) for box in boxes]


class Encoding:
    """The stem of a batch of images, and the features that are read from it.

    Args:
        tower: the reader of the image tower.
        images: (B, 3, H, W), sides that are multiples of the stride, in the dtype of the tower.
        grid: rows and columns of the feature map.
        requests: what will be read; attention readouts change what the stem carries.
        regions: boxes and masks.

    Raises:
        ValueError: an attention readout of a tower that has none, or a readout in which positions
            mix of a tower whose last layer is no transformer block.
    """

    def __init__(
        self,
        tower: Tower,
        images: Tensor,
        grid: tuple[int, int],
        requests: Sequence[Request],
        regions: RegionInputs,
    ):
        _check_readouts(tower, requests)
        self.tower = tower
        self.regions = regions
        self.packed: PackedRegions[Regions] | None = _regions_that_attend(
            tower, grid, requests, regions
        )
        self.allowed: Tensor | None = None  # bool (B, Q, N)
        if self.packed is not None:
            self.allowed = self.packed.allowed.to(images.device, non_blocking=True)
        self.stem: Stem = tower.stem(images, self.allowed)

    def read(self, requests: Sequence[Request], *, normalize: bool) -> dict[Request, Tensor]:
        """Return the feature of each request; see `RegionModel.encode` for shapes and lengths."""
        # Maps come first, each once, however many requests pool it.
        maps = {readout: self._unit_map(readout) for readout in _maps_for(requests, normalize)}
        attended = [] if self.packed is None else [Attended(kind) for kind in self.packed.columns]

        found: dict[Request, Tensor] = {}
        for request in requests:
            if request not in attended:
                found[request] = self._read_one(request, maps, normalize)
        # Boxes and masks whose class tokens went along attend together, in one call.
        if self.packed is not None and self.allowed is not None:
            rows = self.packed.split(self.tower.attend(self.stem, self.allowed))
            found.update({Attended(kind): rows[kind] for kind in rows})

        if normalize:
            for request, feature in found.items():
                if not isinstance(request, Dense):
                    found[request] = unit_length(feature)
        return {request: found[request] for request in requests}

    def _unit_map(self, readout: Readout) -> Tensor:
        """Return the dense map with unit length at each position: (B, C, h, w)."""
        return unit_length(self.tower.dense(self.stem, readout), dim=1)

    def _read_one(self, request: Request, maps: dict[Readout, Tensor], normalize: bool) -> Tensor:
        # No `match`: torch.compile of torch 2.10 does not trace it.
        if isinstance(request, ImageFeature):
            return self.tower.image(self.stem)
        if isinstance(request, Dense):
            if normalize:
                return maps[request.readout]
            return self.tower.dense(self.stem, request.readout)
        if isinstance(request, Pooled):
            pool = pool_boxes if request.regions == "boxes" else pool_masks
            return pool(maps[request.readout], self.regions.of(request.regions))
        return self.tower.align(self.stem, list(self.regions.of(request.regions)))


def _check_readouts(tower: Tower, requests: Sequence[Request]) -> None:
    """Refuse readouts that the tower does not have, before anything runs."""
    if "mix" in tower.supports:
        return
    for request in requests:
        if isinstance(request, OF_MAPS) and request.readout.mixes:
            refuse(tower, "mix")


def _maps_for(requests: Sequence[Request], normalize: bool) -> list[Readout]:
    """Return the readouts whose unit map some request needs, in the order of `Readout`."""
    needed = set()
    for request in requests:
        if isinstance(request, Pooled) or (isinstance(request, Dense) and normalize):
            needed.add(request.readout)
    return [readout for readout in READOUTS.values() if readout in needed]


def _regions_that_attend(
    tower: Tower, grid: tuple[int, int], requests: Sequence[Request], regions: RegionInputs
) -> PackedRegions[Regions] | None:
    """Return boxes and masks whose class tokens go through the tower together, or None."""
    rows: dict[Regions, list[Tensor]] = {}
    for kind in get_args(Regions):
        if Attended(kind) not in requests or (kind == "boxes" and "align" in tower.supports):
            continue
        if "attend" not in tower.supports:
            refuse(tower, "attend")
        rows[kind] = regions.positions(kind, grid)
    return pack_regions(rows) if rows else None

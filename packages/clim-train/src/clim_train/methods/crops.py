"""Images, boxes and a crop of each box: the data of CLIPSelf."""

from dataclasses import dataclass
from typing import Literal

from clim_train.methods.sources import check_sources
from clim_train.options.checks import check_at_least, check_choice, check_default, reject
from clim_train.options.sections import OnError


@dataclass(frozen=True)
class CropDataConfig:
    """Images, boxes in them, and a crop of each box for the teacher (task `clipself`).

    Boxes are the cells of a random grid, or proposals where `boxes` names a file.
    """

    kind: Literal["crops"] = "crops"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs. Captions in them are not read."""
    images: str | None = None
    """A folder of image files, in place of shards."""
    images_json: str | None = None
    """COCO json: only images that it lists are used, for grids (`boxes` does so anyway); None uses
    all."""
    boxes: str | None = None
    """COCO json of proposals (see `clim-data proposals`); None draws a random grid for each image
    and epoch."""
    batch_size: int = 2
    """Images per rank and micro-batch."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    scales: tuple[int, ...] = ()
    """Multi-scale training: the sides to draw from, one for each step, `image_px` among them; ()
    always takes that."""
    crop_px: int | None = None
    """Side of the teacher's crops; None takes the model's native image size."""
    max_split: int = 6
    """Grids only: at most so many rows and columns (and neither more than twice the other)."""
    max_cells: int = 20
    """Boxes per image: of more cells or proposals, so many are drawn."""
    context: float = 1.5
    """Proposals only: the crop is the box enlarged so many times around its centre."""
    min_box_px: int = 8
    """Proposals only: smaller ones (square root of the area, original pixels) are left out."""
    max_box_px: int = 1024
    """Proposals only: larger ones (square root of the area, original pixels) are left out."""
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(
            self, "data", batch_size=1, image_px=1, crop_px=1, max_split=1, max_cells=1, workers=0
        )
        check_at_least(self, "data", context=1.0, min_box_px=0, max_box_px=self.min_box_px + 1)
        if self.scales and (min(self.scales) < 1 or self.image_px not in self.scales):
            reject(
                "data.scales",
                self.scales,
                f"sides of at least 1 pixel with image_px={self.image_px} among them",
            )
        check_sources(self.shards, self.images)
        if self.images_json is not None and self.boxes is not None:
            reject(
                "data.images_json",
                self.images_json,
                "it without data.boxes, which restricts the images itself",
            )
        if self.boxes is None:
            check_default(
                self, "data", ("context", "min_box_px", "max_box_px"), "it together with data.boxes"
            )
        else:
            check_default(self, "data", ("max_split",), "it without data.boxes, for grids")

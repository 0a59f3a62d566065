"""Images, boxes and a crop of each box: the data of CLIPSelf."""

import statistics
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from clim_data import CropBatch, CropLoader
from clim_data.pixels import grid_choices
from clim_data.streams import CropRules, StreamOptions

from clim_train.methods.method import DataKind
from clim_train.methods.region_parts import blank_images, example_boxes
from clim_train.methods.sources import SourceOptions
from clim_train.options.checks import check_at_least, check_default, reject
from clim_train.options.paths import PATH


@dataclass(frozen=True)
class CropDataConfig(SourceOptions):
    """Images, boxes in them, and a crop of each box for the teacher (task `clipself`).

    Boxes are the cells of a random grid, or proposals where `boxes` names a file. Captions are not
    read.
    """

    LEARNED_FROM: ClassVar[str] = "images, whose captions it does not read"

    kind: Literal["crops"] = "crops"
    images_json: str | None = field(default=None, metadata=PATH)
    """COCO json: only images that it lists are used, for grids (`boxes` does so anyway); None uses
    all."""
    boxes: str | None = field(default=None, metadata=PATH)
    """COCO json of proposals (see `clim-data proposals`); None draws a random grid for each image
    and epoch."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    scales: tuple[int, ...] = ()
    """Multi-scale training: each step draws one of these sides, `image_px` among them. () always
    takes `image_px`."""
    crop_px: int | None = None
    """Side of the teacher's crops; None takes the model's native image size."""
    max_split: int = 6
    """Grids only: maximum number of rows and of columns (neither is more than twice the other)."""
    max_cells: int = 20
    """Maximum number of boxes per image. If there are more cells or proposals, a random subset is
    used."""
    context: float = 1.5
    """Proposals only: the crop is the box, enlarged by this factor around its centre."""
    min_box_px: int = 8
    """Proposals only: smaller boxes are skipped (square root of the area, original pixels)."""
    max_box_px: int = 1024
    """Proposals only: larger boxes are skipped (square root of the area, original pixels)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "data", image_px=1, crop_px=1, max_split=1, max_cells=1)
        check_at_least(self, "data", context=1.0, min_box_px=0, max_box_px=self.min_box_px + 1)

        if self.scales and (min(self.scales) < 1 or self.image_px not in self.scales):
            legal = f"sides of at least 1 pixel with image_px={self.image_px} among them"
            reject("data.scales", self.scales, legal)

        if self.images_json is not None and self.boxes is not None:
            legal = "it without data.boxes, which restricts the images itself"
            reject("data.images_json", self.images_json, legal)

        if self.boxes is None:
            only_proposals = ("context", "min_box_px", "max_box_px")
            check_default(self, "data", only_proposals, "it together with data.boxes")
        else:
            check_default(self, "data", ("max_split",), "it without data.boxes, for grids")


def crop_loader(data: CropDataConfig, stream: StreamOptions, model_px: int) -> CropLoader:
    """Return this rank's images, boxes and crops."""
    return CropLoader(
        data.sources(),
        image_px=data.image_px,
        crop_px=data.crop_px or model_px,
        boxes=data.boxes,
        images_json=data.images_json,
        scales=data.scales,
        regions=CropRules(
            max_split=data.max_split,
            max_cells=data.max_cells,
            context=data.context,
            area_px=(data.min_box_px, data.max_box_px),
        ),
        stream=stream,
    )


def example_crops(data: CropDataConfig, model_px: int) -> CropBatch:
    """Return a batch of zeros in which every image has `boxes_per_image` boxes and crops."""
    count = boxes_per_image(data)
    return CropBatch(
        blank_images(data.batch_size, data.image_px),
        [example_boxes(count)] * data.batch_size,
        blank_images(data.batch_size * count, data.crop_px or model_px),
        [str(number) for number in range(data.batch_size)],
    )


def boxes_per_image(data: CropDataConfig) -> int:
    """Return the expected number of boxes: the mean over all grids, or the maximum of proposals."""
    if data.boxes is not None:
        return data.max_cells
    cells = [min(rows * columns, data.max_cells) for rows, columns in grid_choices(data.max_split)]
    return round(statistics.mean(cells))


CROPS = DataKind(
    options=CropDataConfig,
    loader=crop_loader,
    example_batch=example_crops,
    largest_px=lambda data: data.image_px,
    with_px=lambda data, px: replace(data, image_px=px, scales=()),
    px_options=("data.image-px", "data.scales"),
)

"""Images and boxes that have a class: the data of RegionCLIP-style training."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from clim_data import BoxBatch, BoxLoader
from clim_data.streams import StreamOptions

from clim_train.methods.method import DataKind
from clim_train.methods.region_parts import blank_images, example_boxes
from clim_train.methods.sources import SourceOptions
from clim_train.options.checks import check_at_least
from clim_train.options.paths import PATH


@dataclass(frozen=True)
class BoxDataConfig(SourceOptions):
    """Images and boxes that have a class (task `regionclip`). Captions are not read."""

    LEARNED_FROM: ClassVar[str] = "images and the labelled boxes of a COCO json (--data.boxes FILE)"

    NOUN: ClassVar[str] = "images with labelled boxes"

    kind: Literal["boxes"] = "boxes"
    boxes: str | None = field(default=None, metadata=PATH)
    """COCO json with categories: pseudo labels (see `clim-eval pseudo-label`) or annotations of
    your own."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    max_boxes: int = 20
    """Maximum number of boxes per image. If there are more, a random subset is used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "data", image_px=1, max_boxes=1)


def box_loader(data: BoxDataConfig, stream: StreamOptions, model_px: int) -> BoxLoader:
    """Return this rank's images and labelled boxes; its `class_names` are the categories."""
    sources = data.sources()
    if data.boxes is None:
        raise ValueError(
            "no boxes: name a COCO json of labelled boxes with --data.boxes FILE "
            "(see `clim-eval pseudo-label`)"
        )
    return BoxLoader(
        sources, image_px=data.image_px, boxes=data.boxes, max_boxes=data.max_boxes, stream=stream
    )


def example_labelled_boxes(data: BoxDataConfig, model_px: int) -> BoxBatch:
    """Return a batch of zeros in which every image has the maximum number of boxes."""
    labels = torch.zeros(data.batch_size * data.max_boxes, dtype=torch.int64)
    return BoxBatch(
        blank_images(data.batch_size, data.image_px),
        [example_boxes(data.max_boxes)] * data.batch_size,
        labels,
        [str(number) for number in range(data.batch_size)],
    )


BOXES = DataKind(
    options=BoxDataConfig,
    loader=box_loader,
    example_batch=example_labelled_boxes,
    largest_px=lambda data: data.image_px,
    with_px=lambda data, px: replace(data, image_px=px),
    px_options=("data.image-px",),
)

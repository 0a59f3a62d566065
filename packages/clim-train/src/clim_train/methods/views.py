"""Images and annotated boxes, as detectors see them: large-scale jitter of whole images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from clim_data import DetectionBatch, DetectionLoader
from clim_data.files import read_names
from clim_data.streams import StreamOptions

from clim_train.methods.method import DataKind
from clim_train.methods.region_parts import blank_images
from clim_train.methods.sources import SourceOptions
from clim_train.options.checks import check_at_least
from clim_train.options.paths import PATH

# Boxes of an image in example batches; COCO has 7 on average.
_EXAMPLE_BOXES = 8


@dataclass(frozen=True)
class DetectionDataConfig(SourceOptions):
    """Images and annotated boxes of base classes (task `fvit`). Captions are not read."""

    LEARNED_FROM: ClassVar[str] = "images and the boxes of a COCO json (--data.boxes FILE)"

    kind: Literal["detection"] = "detection"
    boxes: str | None = field(default=None, metadata=PATH)
    """COCO json with categories, such as instances_train2017.json."""
    classes: str | None = field(default=None, metadata=PATH)
    """Text file with the names of the base classes, one a line. None takes all categories, which
    must then all have boxes."""
    image_px: int = 640
    """Side of the square of a view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "data", image_px=1)

    def base_names(self) -> list[str] | None:
        """Return the names in `classes`, or None for all categories."""
        if self.classes is None:
            return None
        return read_names(Path(self.classes), "--data.classes")


def detection_loader(
    data: DetectionDataConfig, stream: StreamOptions, model_px: int
) -> DetectionLoader:
    """Return this rank's views; its `class_names` are the categories.

    Raises ValueError where a category that should train has no box.
    """
    sources = data.sources()
    if data.boxes is None:
        raise ValueError("no boxes: name a COCO json of annotated boxes with --data.boxes FILE")
    loader = DetectionLoader(
        sources,
        image_px=data.image_px,
        boxes=data.boxes,
        classes=data.base_names(),
        stream=stream,
    )
    without = sorted(set(data.base_names() or loader.class_names) - set(loader.trained_names))
    if without:
        raise ValueError(
            f"{without[:8]} have no box in {data.boxes}: name the base classes only, "
            "with --data.classes FILE (one name a line)"
        )
    return loader


def example_views(data: DetectionDataConfig, model_px: int) -> DetectionBatch:
    """Return a batch of zeros in which every image has some boxes."""
    side = data.image_px
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.8]]).repeat(_EXAMPLE_BOXES, 1) * side
    count = data.batch_size
    return DetectionBatch(
        blank_images(count, side),
        torch.tensor([[0, 0, side, side]]).repeat(count, 1),
        [boxes] * count,
        [torch.zeros(_EXAMPLE_BOXES, dtype=torch.int64)] * count,
        [str(number) for number in range(count)],
    )


VIEWS = DataKind(
    options=DetectionDataConfig,
    loader=detection_loader,
    example_batch=example_views,
    largest_px=lambda data: data.image_px,
)

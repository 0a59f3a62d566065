"""Images and annotated boxes, as detectors see them: large-scale jitter of whole images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from clim_data import DetectionBatch, DetectionLoader
from clim_data.files import read_names
from clim_data.streams import StreamOptions, ViewRules

from clim_train.methods.method import DataKind
from clim_train.methods.region_parts import blank_images
from clim_train.methods.sources import SourceOptions
from clim_train.options.checks import check_at_least, reject
from clim_train.options.paths import PATH

# Boxes of an image in example batches; COCO has 7 on average.
_EXAMPLE_BOXES = 8


@dataclass(frozen=True)
class DetectionDataConfig(SourceOptions):
    """Images and annotated boxes of base classes (tasks `fvit` and `fvlm`). Captions are not
    read."""

    LEARNED_FROM: ClassVar[str] = "images and the boxes of a COCO json (--data.boxes FILE)"

    NOUN: ClassVar[str] = "images with boxes"

    kind: Literal["detection"] = "detection"
    boxes: str | None = field(default=None, metadata=PATH)
    """COCO or LVIS json with categories, such as instances_train2017.json."""
    classes: str | None = field(default=None, metadata=PATH)
    """Text file with the names of the base classes, one a line. None takes all categories, which
    must then all have boxes, unless `frequencies` chooses."""
    frequencies: tuple[str, ...] = ()
    """Frequencies of the base classes in an LVIS json: f c for OV-LVIS. () takes all."""
    masks: bool = False
    """Read masks, too, for a detector with a mask head. Boxes without one are left out."""
    repeat_below: float | None = None
    """Images with a class that is on a smaller share of the images come several times in an epoch;
    0.001 is LVIS's. None takes every image once."""
    flip_padding: bool = False
    """Mirror views together with their padding, as CLIM's detectors were trained."""
    image_px: int = 640
    """Side of the square of a view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "data", image_px=1)
        if set(self.frequencies) - set("fcr"):
            reject("data.frequencies", self.frequencies, "some of f, c and r, or none for all")
        if self.repeat_below is not None and not 0 < self.repeat_below <= 1:
            reject("data.repeat_below", self.repeat_below, "a number above 0, at most 1, or None")

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
    named = data.base_names()
    rules = ViewRules(
        classes=named,
        frequencies=data.frequencies,
        masks=data.masks,
        repeat_below=data.repeat_below,
        flip_padding=data.flip_padding,
    )
    loader = DetectionLoader(
        sources, image_px=data.image_px, boxes=data.boxes, rules=rules, stream=stream
    )

    # Of the classes of LVIS, small files have some only; the others are no base classes.
    wanted = named or ([] if data.frequencies else loader.class_names)
    without = sorted(set(wanted) - set(loader.trained_names))
    if without:
        raise ValueError(
            f"{without[:8]} have no box in {data.boxes}: name the base classes only, "
            "with --data.classes FILE (one name a line)"
        )
    return loader


def example_views(data: DetectionDataConfig, model_px: int) -> DetectionBatch:
    """Return a batch of zeros in which every image has some boxes."""
    side = data.image_px
    left, top, right, bottom = side // 10, side // 10, side * 6 // 10, side * 8 // 10
    boxes = torch.tensor([[left, top, right, bottom]]).float().repeat(_EXAMPLE_BOXES, 1)
    area = (right - left) * (bottom - top) * _EXAMPLE_BOXES
    count = data.batch_size
    return DetectionBatch(
        blank_images(count, side),
        torch.tensor([[0, 0, side, side]]).repeat(count, 1),
        [boxes] * count,
        [torch.zeros(_EXAMPLE_BOXES, dtype=torch.int64)] * count,
        [str(number) for number in range(count)],
        [torch.ones(area, dtype=torch.bool)] * count if data.masks else None,
    )


VIEWS = DataKind(
    options=DetectionDataConfig,
    loader=detection_loader,
    example_batch=example_views,
    largest_px=lambda data: data.image_px,
)

"""Images and boxes that have a class: the data of RegionCLIP-style training."""

from dataclasses import dataclass
from typing import Literal

from clim_train.methods.sources import check_sources
from clim_train.options.checks import check_at_least, check_choice
from clim_train.options.sections import OnError


@dataclass(frozen=True)
class BoxDataConfig:
    """Images and boxes that have a class (task `regionclip`)."""

    kind: Literal["boxes"] = "boxes"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs. Captions in them are not read."""
    images: str | None = None
    """A folder of image files, in place of shards."""
    boxes: str | None = None
    """COCO json with categories: pseudo labels (see `clim-eval pseudo-label`) or annotations of
    your own."""
    batch_size: int = 2
    """Images per rank and micro-batch."""
    image_px: int = 1024
    """Side of the square that an image is letterboxed to."""
    max_boxes: int = 20
    """Boxes per image: of more, so many are drawn."""
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, image_px=1, max_boxes=1, workers=0)
        check_sources(self.shards, self.images)

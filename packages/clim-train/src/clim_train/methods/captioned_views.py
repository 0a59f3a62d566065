"""Images with boxes, pictures with captions and tags, and mosaics of these, as Detic + CLIM reads
them."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from clim_data.streams import (
    CaptionedBatch,
    CaptionedDetectionLoader,
    CaptionSource,
    MixedBatch,
    StreamOptions,
)

from clim_train.methods.method import DataKind
from clim_train.methods.views import DetectionDataConfig, detection_loader, example_views
from clim_train.options.checks import check_at_least, check_default, reject
from clim_train.options.paths import PATH

# Sides of a batch are multiples of it.
MULTIPLE = 32
# Number of pictures in the largest mosaics.
MOST_PICTURES = 16
# Longest side of a whole picture, as a multiple of its short side.
LONGEST = 5 / 3


@dataclass(frozen=True)
class CaptionedDataConfig(DetectionDataConfig):
    """Images and boxes of base classes, and pictures with captions and tags (task `detic`)."""

    LEARNED_FROM: ClassVar[str] = (
        "images and the boxes of a COCO or LVIS json (--data.boxes FILE), and captions and tags "
        "(--data.captions FILE)"
    )

    kind: Literal["captioned_boxes"] = "captioned_boxes"  # type: ignore[assignment]  # its own
    captions: str | None = field(default=None, metadata=PATH)
    """Json of `clim-data tags`, one of Detic's, or COCO's captions where `tags` is off."""
    caption_shards: tuple[str, ...] = field(default=(), metadata=PATH)
    """Shards of the pictures with captions."""
    caption_images: str | None = field(default=None, metadata=PATH)
    """Folder of the pictures with captions. Without it and without shards they are in the images
    with boxes."""
    pictures: int = 0
    """Pictures with captions in a step, for each image with boxes."""
    mosaics: int = 0
    """Mosaics of such pictures in a step, for each image with boxes."""
    tags: bool = True
    """Learn the tags of pictures, too, and not the captions alone."""
    pool: int = 48
    """Pictures of which the mosaics of a step and rank are made, besides the first of each."""
    crops: bool = False
    """Cut views of `image_px` out of images that are resized at random (OV-LVIS). Off: whole images
    are resized, `image_px` is their short side (OV-COCO)."""
    image_px: int = 800
    """Side of a view, or short side of a whole image; half of it for pictures with captions."""
    original: bool = False
    """Draw as the released code: the mosaics of a step begin with its pictures, and rare classes of
    LVIS are negatives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "data", image_px=2, pictures=0, mosaics=0, pool=1)
        check_default(self, "data", ("flip_padding",), "it with other detectors only")
        if self.masks and not self.crops:
            reject("data.masks", self.masks, "--data.crops with it: whole images have no masks")
        if self.caption_shards and self.caption_images is not None:
            reject(
                "data.caption_images",
                self.caption_images,
                "either it or data.caption_shards, not both",
            )
        if not self.has_captions:
            names = ("captions", "caption_shards", "caption_images", "pool")
            check_default(self, "data", names, "it with data.pictures or data.mosaics above 0")

    @property
    def has_captions(self) -> bool:
        """Whether a step has pictures with captions, or mosaics of them."""
        return self.pictures + self.mosaics > 0

    def caption_source(self) -> CaptionSource | None:
        """Return the pictures with captions, None where only boxes train.

        Raises ValueError where no file of captions is named, and FileNotFoundError where there is
        no such folder.
        """
        if not self.has_captions:
            return None
        if self.captions is None:
            raise ValueError(
                "no captions: name a file of `clim-data tags` with --data.captions FILE"
                + ("" if self.tags else ", or COCO's captions")
            )
        folder = self.caption_images
        if folder is not None and not Path(folder).is_dir():
            raise FileNotFoundError(
                f"--data.caption-images {folder} is not a folder: name the folder of the pictures, "
                "or shards with --data.caption-shards"
            )
        own = list(self.caption_shards) if folder is None else [folder]
        return CaptionSource(
            sources=own or self.sources(),
            captions=self.captions,
            pictures=self.pictures,
            mosaics=self.mosaics,
            tags=self.tags,
            pool=self.pool,
        )


def captioned_loader(
    data: CaptionedDataConfig, stream: StreamOptions, model_px: int
) -> CaptionedDetectionLoader:
    """Return this rank's batches; its `class_names` are the categories of the boxes.

    Raises ValueError and FileNotFoundError where boxes or captions are missing or do not fit.
    """
    captions = data.caption_source()
    return CaptionedDetectionLoader(
        detection_loader(data, stream, model_px),
        image_px=data.image_px,
        crops=data.crops,
        captions=captions,
        original=data.original,
        stream=stream,
    )


def example_step(data: CaptionedDataConfig, model_px: int) -> MixedBatch:
    """Return a batch of zeros: upright images whose short side is `image_px`, or square crops.

    Mosaics have the largest number of pictures.
    """
    side = data.image_px
    boxes = example_views(data, model_px)
    if not data.crops:
        size = (padded_side(side * LONGEST), padded_side(side))
        images = torch.zeros(len(boxes), 3, *size, dtype=torch.uint8)
        boxes = replace(boxes, images=images)

    pictures = mosaics = None
    if data.pictures:
        half = (side // 2, side // 2) if data.crops else (round(side * LONGEST / 2), side // 2)
        pictures = _example(data.pictures * data.batch_size, half, 1)
    if data.mosaics:
        mosaics = _example(data.mosaics * data.batch_size, (side, side), MOST_PICTURES)
    return MixedBatch(boxes, pictures, mosaics)


def padded_side(side: float) -> int:
    """Return a side in pixels, rounded up to what batches are padded to."""
    return -(-round(side) // MULTIPLE) * MULTIPLE


def _example(count: int, size: tuple[int, int], pictures: int) -> CaptionedBatch:
    height, width = size
    images = torch.zeros(count, 3, padded_side(height), padded_side(width), dtype=torch.uint8)
    window = torch.tensor([0, 0, width, height])
    return CaptionedBatch(
        images,
        window.repeat(count, 1),
        [window.float().repeat(pictures, 1)] * count,
        [torch.zeros(pictures, dtype=torch.int64)] * count,
        [torch.zeros(pictures, 1, dtype=torch.bool)] * count,
        [""] * (count * pictures),
        [str(number) for number in range(count)],
    )


CAPTIONED_VIEWS = DataKind(
    options=CaptionedDataConfig,
    loader=captioned_loader,
    example_batch=example_step,
    largest_px=lambda data: data.image_px if data.crops else round(data.image_px * LONGEST),
)

"""Images with boxes, pictures with captions and tags, and mosaics of them, in fixed numbers per
step: the data of Detic + CLIM."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clim_data.matching.tagged_captions import TaggedCaptions, load_tagged_captions
from clim_data.sources.expand import Sources
from clim_data.sources.store import SampleStore
from clim_data.streams.captioned_batches import CanvasBuilder, CaptionBuilder
from clim_data.streams.detection_batches import DetectionBuilder, DetectionLoader
from clim_data.streams.loaders import open_store
from clim_data.streams.mixed import MixedLoader, MixedPart
from clim_data.streams.mixture import is_wide
from clim_data.streams.options import StreamOptions, check_whole
from clim_data.streams.repeats import RepeatedSamples
from clim_data.streams.whole_pictures import PictureReader, PictureRules, ResizedBuilder

# Longest side of a resized picture, in its short sides: 1333 of 800 pixels.
LONGEST = 5 / 3
# Ratios of crops of pictures with captions.
RATIOS = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class CaptionSource:
    """Pictures with captions, and how many of them a step has.

    Raises:
        ValueError: a number is out of range, or there is neither a picture nor a mosaic.
    """

    sources: Sources
    """As in `MosaicLoader`; also plain folders of image files."""
    captions: str | Path
    """File of `clim-data tags`, one of Detic's, or COCO's captions, which have no tags."""
    pictures: int = 1
    """Pictures in a step, for each image with boxes."""
    mosaics: int = 1
    """Mosaics in a step, for each image with boxes."""
    tags: bool = True
    """Whether the file must have tags. False does not read them."""
    pool: int = 48
    """Pictures that the mosaics of a step and rank are made of, besides the first of each."""

    def __post_init__(self) -> None:
        check_whole("pictures", self.pictures, 0)
        check_whole("mosaics", self.mosaics, 0)
        check_whole("pool", self.pool, 1)
        if not self.pictures and not self.mosaics:
            raise ValueError("pictures=0 and mosaics=0: leave captions out, or take some of them")


class CaptionedDetectionLoader(MixedLoader):
    """Endless epochs of `MixedBatch`es.

    Whole pictures are resized: short side `image_px`, half of it without boxes. Cropped ones are
    scaled at random: crops of `image_px`, half of it without boxes. Cells of a mosaic have half of
    `image_px`, and the mosaic is resized to `image_px`.

    Args:
        detection: images with boxes; its batches are those of a step where `crops` is on.
        image_px: see above.
        crops: whether pictures are cropped.
        captions: None trains on boxes only.
        original: see `Mixture`; and `image_counts` are those that the categories of the file name,
            also of classes that do not train.
        stream: as in `MosaicLoader`; `batch_size` counts the images with boxes.

    Attributes:
        class_names, trained_names, image_counts: of `detection`.

    Raises:
        ValueError, FileNotFoundError: see `load_tagged_captions` and `MixedLoader`.
    """

    def __init__(
        self,
        detection: DetectionLoader,
        *,
        image_px: int,
        crops: bool,
        captions: CaptionSource | None,
        original: bool = False,
        stream: StreamOptions,
    ):
        check_whole("image_px", image_px, 2)
        self.class_names = detection.class_names
        self.trained_names = detection.trained_names
        self.image_counts = detection.image_counts
        build = detection.build
        assert isinstance(build, DetectionBuilder)
        if original and any(build.table.image_counts):
            self.image_counts = list(build.table.image_counts)
        parts = [_boxes(detection, image_px, crops, stream)]

        if captions is not None:
            store = open_store(captions.sources, stream, texts=False)
            table = load_tagged_captions(
                captions.captions, store, self.class_names, need_tags=captions.tags
            )
            parts += _captioned(captions, store, table, (image_px, crops), stream)
        super().__init__(parts, stream, original=original)


def _boxes(
    detection: DetectionLoader, image_px: int, crops: bool, stream: StreamOptions
) -> MixedPart:
    """Return the part of the images with boxes."""
    build = detection.build
    assert isinstance(build, DetectionBuilder)
    store, table = detection.store, build.table
    rows = np.arange(len(table))
    if isinstance(store, RepeatedSamples):
        rows = store.owners

    resize = PictureRules(image_px, round(image_px * LONGEST))
    resized = ResizedBuilder(resize, table, stream.background, stream.max_pixels)
    stamp = f"{detection.fingerprint()}|{image_px}|{crops}"
    wide = is_wide(table.sizes)[rows]
    return MixedPart("boxes", store, build if crops else resized, stream.batch_size, wide, stamp)


def _captioned(
    source: CaptionSource,
    store: SampleStore,
    table: TaggedCaptions,
    views: tuple[int, bool],
    stream: StreamOptions,
) -> list[MixedPart]:
    """Return the parts of pictures with captions and of their mosaics."""
    image_px, crops = views
    half = image_px // 2
    if crops:
        whole = tile = PictureRules(half, half, RATIOS)
    else:
        whole, tile = PictureRules(half, round(image_px * LONGEST / 2)), PictureRules(half, half)

    # Sizes that the file does not give are those of one group.
    wide = np.ones(len(store), dtype=bool) if table.sizes is None else is_wide(table.sizes)
    stamp = f"{table.stamp()}|{image_px}|{crops}|{source.pool}"
    options = stream.background, stream.max_pixels
    parts = []
    if source.pictures:
        reader = PictureReader(whole, *options)
        count = source.pictures * stream.batch_size
        build = CaptionBuilder(reader, table)
        parts.append(MixedPart("captions", store, build, count, wide, stamp))
    if source.mosaics:
        canvases = CanvasBuilder(
            PictureReader(tile, *options), table, store, half, image_px, source.pool
        )
        count = source.mosaics * stream.batch_size
        parts.append(MixedPart("mosaics", store, canvases, count, wide, stamp))
    return parts

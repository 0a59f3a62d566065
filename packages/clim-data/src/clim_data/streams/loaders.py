"""The training streams: mosaics with captions, images with crops, images with labelled boxes."""

from pathlib import Path
from typing import Unpack

from clim_data.matching.box_json import BoxRules
from clim_data.matching.boxes import keep_images, load_boxes
from clim_data.sources.expand import Sources
from clim_data.sources.store import SampleStore
from clim_data.streams.epochs import EpochLoader
from clim_data.streams.mosaic_batches import MosaicBuilder
from clim_data.streams.mosaics import MosaicBatch, MosaicConfig
from clim_data.streams.options import (
    CropKeywords,
    CropRules,
    StreamKeywords,
    StreamOptions,
    check_whole,
    choose_crops,
    choose_stream,
)
from clim_data.streams.region_batches import BoxBatch, BoxBuilder, CropBatch, CropBuilder


class MosaicLoader(EpochLoader[MosaicBatch]):
    """Endless epochs of `MosaicBatch`es from webdataset shards, or folders of images with a txt
    next to each.

    The order of the samples is a function of (seed, epoch); `rank` takes its share of every step;
    workers only decode. So the batches do not depend on the number of workers, and every rank has
    the same number of them. Captions, crops and backgrounds follow from (seed, epoch, sample).

    `iter(loader)` yields the rest of the current epoch, then the epoch advances; call it again for
    the next one. A broken sample makes its batch smaller. A batch in which nothing can be read
    raises, it never disappears.

    Args:
        sources: shard paths, globs, folders, or URLs (`https://...`, `s3://...`, `pipe:...`),
            braces allowed. A folder without shards is read as images; captions are the lines of the
            txt next to each, or `metadata.jsonl` or `metadata.csv`.
        mosaic: layout and sizes.
        stream: batch size, order, ranks, workers, background and the rest.
        keywords: the fields of `stream` one by one, `ranks` as `rank` and `world_size`; accepted in
            its place for one release.

    Raises:
        ValueError: an option is out of range, or there are fewer samples than ranks.
        FileNotFoundError: a source matches nothing.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        mosaic: MosaicConfig | None = None,
        stream: StreamOptions | None = None,
        **keywords: Unpack[StreamKeywords],
    ):
        stream = choose_stream(stream, keywords)
        build = MosaicBuilder(mosaic or MosaicConfig(), stream.background, stream.max_pixels)
        super().__init__(open_store(sources, stream), build, stream)


class CropLoader(EpochLoader[CropBatch]):
    """Endless epochs of `CropBatch`es for self-distillation (CLIPSelf, arXiv 2310.01403): images
    and crops of them.

    Without `boxes`, an image is cut into a random grid of m x n cells (m / 2 <= n <= 2 m, at most
    `max_split` each way), and up to `max_cells` of them, in random order, are its regions and its
    crops. With `boxes`, its regions are up to `max_cells` random ones of its boxes, clipped to the
    image, and its crops are `context` times as large (these three are fields of `regions`). An
    image is decoded once; the letterboxed image and all crops are made from that.

    Images need no captions. Order, ranks, workers, broken samples and resuming are those of
    `MosaicLoader`.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        image_px: side of the letterboxed image. crop_px: side of a crop.
        boxes: COCO json of boxes (any categories) by file name; images without a usable box are
            skipped.
        images_json: use only the images of this COCO json, for grids (`boxes` does so anyway).
        scales: sides of the image, one of which is drawn for each step, the same for all ranks, in
            place of `image_px`, which must be one of them (see `MULTI_SCALES`); () for `image_px`
            always.
        regions: rules for boxes and cells, and the size of their crops.
        stream: as in `MosaicLoader`.
        keywords: the fields of `regions` and `stream` one by one; accepted in their place for one
            release.

    Raises:
        ValueError: an option is out of range, the json names no image of the sources, or there are
            fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        image_px: int,
        crop_px: int,
        boxes: str | Path | None = None,
        images_json: str | Path | None = None,
        scales: tuple[int, ...] = (),
        regions: CropRules | None = None,
        stream: StreamOptions | None = None,
        **keywords: Unpack[CropKeywords],
    ):
        regions, stream_keywords = choose_crops(regions, keywords)
        stream = choose_stream(stream, stream_keywords)
        check_whole("image_px", image_px, 1)
        check_whole("crop_px", crop_px, 1)
        _check_scales(scales, image_px)
        if boxes is not None and images_json is not None:
            raise ValueError(
                "images_json restricts grids; boxes restricts the images itself: give one of them"
            )
        rules = BoxRules(area_px=tuple(regions.area_px), labelled=False)

        store = open_store(sources, stream, texts=False)
        if images_json is not None:
            keep_images(images_json, store)
        table = load_boxes(boxes, store, rules) if boxes is not None else None

        build = CropBuilder(
            image_px=image_px,
            crop_px=crop_px,
            table=table,
            rules=regions,
            scales=tuple(scales),
            background=stream.background,
            max_pixels=stream.max_pixels,
        )
        stamp = table.stamp() if table is not None else ""
        super().__init__(store, build, stream, build_stamp=stamp)


class BoxLoader(EpochLoader[BoxBatch]):
    """Endless epochs of `BoxBatch`es: images with the labelled boxes of a COCO json
    (RegionCLIP-style training).

    Boxes are clipped to their image. Images without a usable box are skipped. Order, ranks,
    workers, broken samples and resuming are those of `MosaicLoader`; images need no captions.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        image_px: side of the letterboxed image.
        boxes: COCO json with categories; its file names are those in the folder, or without ending
            the keys in shards.
        max_boxes: largest number per image; of more boxes, every epoch draws a random subset.
        area_px: square roots of the smallest and largest area of a box in original pixels; None for
            any.
        crowd: "skip" crowd regions or "keep" them.
        stream, keywords: as in `MosaicLoader`.

    Raises:
        ValueError: an option is out of range, the json names no image of the sources, or there are
            fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        image_px: int,
        boxes: str | Path,
        max_boxes: int = 20,
        area_px: tuple[float, float] | None = None,
        crowd: str = "skip",
        stream: StreamOptions | None = None,
        **keywords: Unpack[StreamKeywords],
    ):
        stream = choose_stream(stream, keywords)
        check_whole("image_px", image_px, 1)
        check_whole("max_boxes", max_boxes, 1)
        rules = BoxRules(area_px=None if area_px is None else tuple(area_px), crowd=crowd)

        store = open_store(sources, stream, texts=False)
        table = load_boxes(boxes, store, rules)
        self.class_names: list[str] = list(table.class_names)

        build = BoxBuilder(
            image_px=image_px,
            table=table,
            max_boxes=max_boxes,
            background=stream.background,
            max_pixels=stream.max_pixels,
        )
        super().__init__(store, build, stream, build_stamp=table.stamp())


def open_store(sources: Sources, stream: StreamOptions, *, texts: bool = True) -> SampleStore:
    """Open the samples of a stream; with `texts`, only samples that have captions."""
    return SampleStore(
        sources,
        texts=texts,
        on_error=stream.on_error,
        cache_folder=stream.cache_folder,
        cache_shards=stream.cache_shards,
    )


def _check_scales(scales: tuple[int, ...], image_px: int) -> None:
    if scales and image_px not in scales:
        raise ValueError(
            f"image_px={image_px} is not one of scales={tuple(scales)}: add it, or leave "
            "scales empty"
        )
    for side in scales:
        check_whole("scales", side, 1)

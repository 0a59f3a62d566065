"""The training streams: mosaics with captions, images with crops, images with labelled boxes."""

from pathlib import Path

from clim_data.matching.box_json import BoxRules
from clim_data.matching.boxes import keep_images, load_boxes
from clim_data.sources.expand import Sources
from clim_data.sources.store import SampleStore
from clim_data.streams.epochs import EpochLoader, check_stream, check_whole
from clim_data.streams.mosaic_batches import MosaicBuilder
from clim_data.streams.mosaics import MosaicBatch, MosaicConfig
from clim_data.streams.region_batches import BoxBatch, BoxBuilder, CropBatch, CropBuilder


class MosaicLoader(EpochLoader[MosaicBatch]):
    """Endless epochs of `MosaicBatch`es from webdataset shards, or folders of images with a txt
    beside each.

    The order of the samples is a function of (seed, epoch); `rank` takes its share of every step;
    workers only decode. So the batches do not depend on the number of workers, and every rank has
    the same number of them. Captions, crops and backgrounds follow from (seed, epoch, sample).

    `iter(loader)` yields what is left of the current epoch, then the epoch advances; call it again
    for the next one. A broken sample makes its batch smaller. A batch in which nothing can be read
    raises, it never disappears.

    Args:
        sources: shard paths, globs, folders, or URLs (`https://...`, `s3://...`, `pipe:...`),
            braces allowed. A folder without shards is read as images; captions are the lines of the
            txt beside each, or `metadata.jsonl`.
        batch_size: images per rank and step, before mosaics are laid out.
        mosaic: layout and sizes.
        seed: of order, captions and crops.
        rank, world_size: of this process.
        workers: decoding processes; 0 decodes in this one.
        on_error: "skip" names broken samples in `skipped`, "raise" raises.
        shuffle: False keeps the order of the sources, for every epoch.
        drop_last: drop an incomplete last step (see `global_steps`); by default nothing is lost.
        background: what shows through transparent pixels, "white" or "random" (a colour for each
            image and epoch).
        max_pixels: images with more are refused by their header (default: see
            `clim_data.pixels.decode.pixel_limit`).
        cache_folder: where remote shards and large indexes are kept.
        cache_shards: remote shards in use at a time, also the window of their shuffle.

    Raises:
        ValueError: an option is out of range, or there are fewer samples than ranks.
        FileNotFoundError: a source matches nothing.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        batch_size: int,
        mosaic: MosaicConfig | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: str = "skip",
        shuffle: bool = True,
        drop_last: bool = False,
        background: str = "white",
        max_pixels: int | None = None,
        cache_folder: str | Path | None = None,
        cache_shards: int = 16,
    ):
        stream = {
            "batch_size": batch_size,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "workers": workers,
        }
        check_stream(**stream, on_error=on_error, max_pixels=max_pixels, background=background)
        store = SampleStore(
            sources, on_error=on_error, cache_folder=cache_folder, cache_shards=cache_shards
        )
        build = MosaicBuilder(mosaic or MosaicConfig(), background, max_pixels)
        super().__init__(
            store,
            build,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            workers=workers,
            shuffle=shuffle,
            drop_last=drop_last,
        )


class CropLoader(EpochLoader[CropBatch]):
    """Endless epochs of `CropBatch`es for self-distillation (CLIPSelf, arXiv 2310.01403): images
    and crops of them.

    Without `boxes`, an image is cut into a random grid of m x n cells (m / 2 <= n <= 2 m, at most
    `max_split` each way), and up to `max_cells` of them, in random order, are its regions and its
    crops. With `boxes`, its regions are up to `max_cells` random ones of its boxes, clipped to the
    image, and its crops are `context` times as large. An image is decoded once; the letterboxed
    image and all crops are made from that.

    Images need no captions. Order, ranks, workers, broken samples and resuming are those of
    `MosaicLoader`.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        batch_size: images per rank and step.
        image_px: side of the letterboxed image. crop_px: side of a crop.
        boxes: COCO json of boxes (any categories) by file name; images without a usable box are
            left out.
        images_json: use only the images of this COCO json, for grids (`boxes` does so anyway).
        max_split: of a grid (6 and 16 are those of the paper's code). max_cells: regions of an
            image, at most.
        context: size of a crop, in sizes of its box; only with `boxes`.
        area_px: square roots of the smallest and largest area of a box in original pixels; only
            with `boxes`.
        scales: sides of the image, one of which is drawn for each step, the same for all ranks, in
            place of `image_px`, which must be one of them (see `MULTI_SCALES`); () for `image_px`
            always.
        seed, rank, world_size, workers, on_error, shuffle, drop_last, background, max_pixels,
        cache_folder,
            cache_shards: as in `MosaicLoader`.

    Raises:
        ValueError: an option is out of range, the json names no image of the sources, or there are
            fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        batch_size: int,
        image_px: int,
        crop_px: int,
        boxes: str | Path | None = None,
        images_json: str | Path | None = None,
        max_split: int = 6,
        max_cells: int = 20,
        context: float = 1.5,
        area_px: tuple[float, float] = (8, 1024),
        scales: tuple[int, ...] = (),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: str = "skip",
        shuffle: bool = True,
        drop_last: bool = False,
        background: str = "white",
        max_pixels: int | None = None,
        cache_folder: str | Path | None = None,
        cache_shards: int = 16,
    ):
        stream = {
            "batch_size": batch_size,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "workers": workers,
        }
        check_stream(**stream, on_error=on_error, max_pixels=max_pixels, background=background)
        for name, value in (("image_px", image_px), ("crop_px", crop_px), ("max_split", max_split)):
            check_whole(name, value, 1)
        check_whole("max_cells", max_cells, 1)
        if scales and image_px not in scales:
            raise ValueError(
                f"image_px={image_px} is not one of scales={tuple(scales)}: add it, or leave "
                "scales empty"
            )
        for side in scales:
            check_whole("scales", side, 1)
        if context < 1:
            raise ValueError(f"context={context} must be at least 1, the box itself")
        if boxes is not None and images_json is not None:
            raise ValueError(
                "images_json restricts grids; boxes restricts the images itself: give one of them"
            )
        rules = BoxRules(area_px=tuple(area_px), labelled=False)
        store = SampleStore(
            sources,
            texts=False,
            on_error=on_error,
            cache_folder=cache_folder,
            cache_shards=cache_shards,
        )
        if images_json is not None:
            keep_images(images_json, store)
        table = load_boxes(boxes, store, rules) if boxes is not None else None
        build = CropBuilder(
            image_px=image_px,
            crop_px=crop_px,
            table=table,
            max_split=max_split,
            max_cells=max_cells,
            context=context,
            scales=tuple(scales),
            background=background,
            max_pixels=max_pixels,
        )
        stamp = table.stamp() if table is not None else ""
        super().__init__(
            store, build, **stream, shuffle=shuffle, drop_last=drop_last, build_stamp=stamp
        )


class BoxLoader(EpochLoader[BoxBatch]):
    """Endless epochs of `BoxBatch`es: images with the labelled boxes of a COCO json
    (RegionCLIP-style training).

    Boxes are clipped to their image. Images without a usable box are left out. Order, ranks,
    workers, broken samples and resuming are those of `MosaicLoader`; images need no captions.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        batch_size: images per rank and step.
        image_px: side of the letterboxed image.
        boxes: COCO json with categories; its file names are those in the folder, or without ending
            the keys in shards.
        max_boxes: of an image; when it has more, so many are drawn anew in every epoch.
        area_px: square roots of the smallest and largest area of a box in original pixels; None for
            any.
        crowd: "skip" crowd regions or "keep" them.
        seed, rank, world_size, workers, on_error, shuffle, drop_last, background, max_pixels,
        cache_folder,
            cache_shards: as in `MosaicLoader`.

    Raises:
        ValueError: an option is out of range, the json names no image of the sources, or there are
            fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        batch_size: int,
        image_px: int,
        boxes: str | Path,
        max_boxes: int = 20,
        area_px: tuple[float, float] | None = None,
        crowd: str = "skip",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: str = "skip",
        shuffle: bool = True,
        drop_last: bool = False,
        background: str = "white",
        max_pixels: int | None = None,
        cache_folder: str | Path | None = None,
        cache_shards: int = 16,
    ):
        stream = {
            "batch_size": batch_size,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "workers": workers,
        }
        check_stream(**stream, on_error=on_error, max_pixels=max_pixels, background=background)
        check_whole("image_px", image_px, 1)
        check_whole("max_boxes", max_boxes, 1)
        rules = BoxRules(area_px=None if area_px is None else tuple(area_px), crowd=crowd)
        store = SampleStore(
            sources,
            texts=False,
            on_error=on_error,
            cache_folder=cache_folder,
            cache_shards=cache_shards,
        )
        table = load_boxes(boxes, store, rules)
        build = BoxBuilder(
            image_px=image_px,
            table=table,
            max_boxes=max_boxes,
            background=background,
            max_pixels=max_pixels,
        )
        self.class_names: list[str] = list(table.class_names)
        super().__init__(
            store, build, **stream, shuffle=shuffle, drop_last=drop_last, build_stamp=table.stamp()
        )

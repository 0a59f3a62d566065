"""Images with captions, in mosaics: the data of CLIM."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from clim_data import MosaicBatch, MosaicConfig, MosaicLoader, plan_mosaics
from clim_data.streams import StreamOptions

from clim_train.methods.method import DataKind
from clim_train.methods.region_parts import blank_images
from clim_train.methods.sources import SourceOptions


@dataclass(frozen=True)
class PairDataConfig(SourceOptions):
    """Images with captions, and how a batch is laid out as mosaics and single images (task
    `clim`)."""

    LEARNED_FROM: ClassVar[str] = "images with captions (see `clim-data pack`)"

    NOUN: ClassVar[str] = "images with captions"

    kind: Literal["pairs"] = "pairs"
    images: str | None = None
    """A folder of image files with captions (NAME.txt next to each, or metadata.jsonl), in place of
    shards."""
    batch_size: int = 32
    """Images per rank and micro-batch, tiles of mosaics included."""
    mosaic: MosaicConfig = field(default_factory=MosaicConfig)


def pair_loader(data: PairDataConfig, stream: StreamOptions, model_px: int) -> MosaicLoader:
    """Return this rank's mosaics and single images."""
    return MosaicLoader(data.sources(), mosaic=data.mosaic, stream=stream)


def example_pairs(data: PairDataConfig, model_px: int) -> MosaicBatch:
    """Return a batch of zeros with the mosaics and single images that a whole batch has."""
    plan = plan_mosaics(data.batch_size, data.mosaic)
    names = [str(number) for number in range(data.batch_size)]
    return MosaicBatch(
        blank_images(len(plan.sides), data.mosaic.canvas_px),
        plan.boxes(data.mosaic),
        blank_images(plan.num_singles, data.mosaic.single_px),
        names,
        names,
    )


def pairs_of_px(data: PairDataConfig, px: int) -> PairDataConfig:
    """Return the options with mosaics of `px`, and single images that are no larger."""
    mosaic = replace(data.mosaic, canvas_px=px, single_px=min(data.mosaic.single_px, px))
    return replace(data, mosaic=mosaic)


PAIRS = DataKind(
    options=PairDataConfig,
    loader=pair_loader,
    example_batch=example_pairs,
    largest_px=lambda data: data.mosaic.canvas_px,
    with_px=pairs_of_px,
    px_options=("data.mosaic.canvas-px", "data.mosaic.single-px"),
)

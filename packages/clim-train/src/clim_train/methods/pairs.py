"""Image-text pairs in mosaics: the data of CLIM."""

from dataclasses import dataclass, field
from typing import Literal

from clim_data.streams.mosaics import MosaicConfig

from clim_train.methods.sources import check_sources
from clim_train.options.checks import check_at_least, check_choice
from clim_train.options.sections import OnError


@dataclass(frozen=True)
class PairDataConfig:
    """Image-text shards and how a batch is laid out as mosaics and single images (task `clim`)."""

    kind: Literal["pairs"] = "pairs"
    shards: tuple[str, ...] = ()
    """webdataset tars: paths, folders, globs or URLs."""
    images: str | None = None
    """A folder of image files with captions (NAME.txt beside each, or metadata.jsonl), in place of
    shards."""
    batch_size: int = 32
    """Images per rank and micro-batch, tiles of mosaics included."""
    mosaic: MosaicConfig = field(default_factory=MosaicConfig)
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    on_error: OnError = "skip"

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, workers=0)
        check_sources(self.shards, self.images)

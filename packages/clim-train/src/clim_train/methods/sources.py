"""Options that every kind of data has: where the images are, and how they are read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from clim_train.options.checks import check_at_least, check_choice, reject
from clim_train.options.paths import OUTPUT, PATH
from clim_train.options.sections import OnError


@dataclass(frozen=True)
class SourceOptions:
    """The section `data` of a configuration; each kind of data has its own subclass."""

    LEARNED_FROM: ClassVar[str] = "images"
    """What training data of this kind are, for messages."""

    NOUN: ClassVar[str] = "images"
    """What the data are, for "10 images with captions in photos"."""

    kind: str
    shards: tuple[str, ...] = field(default=(), metadata=PATH)
    """webdataset tars: paths, folders, globs or URLs."""
    images: str | None = field(default=None, metadata=PATH)
    """A folder of image files, in place of shards."""
    batch_size: int = 2
    """Images per rank and micro-batch."""
    background: Literal["white", "random"] = "white"
    """What shows through transparent pixels."""
    workers: int = 4
    """Processes that load images, per rank."""
    on_error: OnError = "skip"
    """Broken samples: `skip` them and name them in `skipped.json`, or `raise` an error."""
    max_pixels: int | None = None
    """Refuse larger images by their header. None takes CLIM_DATA_MAX_PIXELS, or 128 million."""
    cache_folder: str | None = field(default=None, metadata=OUTPUT)
    """Where remote shards and large indexes are stored. None takes CLIM_DATA_CACHE, or a folder in
    the user's cache."""
    cache_shards: int = 16
    """Remote shards in use at a time, which are shuffled together. Twice as many stay on the
    disk."""

    def __post_init__(self) -> None:
        for name in ("kind", "background", "on_error"):
            check_choice(self, "data", name)
        check_at_least(self, "data", batch_size=1, workers=0, cache_shards=1)
        if self.max_pixels is not None:
            check_at_least(self, "data", max_pixels=1)
        if self.shards and self.images is not None:
            reject("data.images", self.images, "either it or data.shards, not both")

    def sources(self) -> list[str]:
        """Return the shards, or the folder of images.

        Raises ValueError where none are named and FileNotFoundError where there is no such folder.
        Both say what the data are.
        """
        fix = (
            f"this recipe learns from {self.LEARNED_FROM}; name a folder of image files with "
            "--data.images FOLDER, or shards with --data.shards 'FOLDER/*.tar'"
        )
        if self.images is not None:
            if not Path(self.images).is_dir():
                raise FileNotFoundError(f"--data.images {self.images} is not a folder: {fix}")
            return [self.images]

        if not self.shards:
            raise ValueError(f"no training data: {fix}")
        return list(self.shards)

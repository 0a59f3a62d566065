"""The images that records name: files of a folder, or samples of shards."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from clim_data.faults import BrokenSample
from clim_data.files.identity import SampleName, SampleNames
from clim_data.files.names import locate
from clim_data.files.stamps import FileStamp, file_stamp
from clim_data.sources.expand import Sources, expand_sources
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.store import SampleStore
from clim_data.sources.walk import walk_folder


class FoundImage(NamedTuple):
    """An encoded image: its path or its bytes, and what to call it in errors."""

    source: Path | bytes
    name: str


class NamedImages(ABC):
    """Images by the place of their name in a list.

    names: as records have them, with "/" between folders.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names

    @abstractmethod
    def check(self, place: int) -> None:
        """Raise BrokenSample when there is no image of a name; nothing is read."""

    @abstractmethod
    def find(self, place: int) -> FoundImage:
        """Return the image of a name.

        Raises:
            BrokenSample: there is none, or it cannot be read.
        """

    @abstractmethod
    def stamp(self, place: int) -> FileStamp | None:
        """Return a value that changes when the file of an image is replaced, None if it has no
        file."""


def open_named_images(images: Sources, names: Sequence[str]) -> NamedImages:
    """Open a folder of image files, or shards, to which `names` belong.

    Args:
        images: as `expand_sources` takes them. A folder with a tar in it holds shards.

    Raises:
        FileNotFoundError: there is no such folder or shard.
        ValueError: a name fits two samples of the shards, or two names fit one.
    """
    if isinstance(images, str | Path):
        folder = Path(images)
        if folder.is_dir() and next(folder.glob("*.tar"), None) is None:
            return _Files(folder, names)
        if not folder.suffix and "://" not in str(images) and not folder.exists():
            raise FileNotFoundError(
                f"no image folder {images}: give the folder that holds the image files, or shards"
            )
    return _Samples(images, names)


class _Files(NamedImages):
    """Files below a folder, found by `locate`, or else by the rules for boxes in training."""

    def __init__(self, folder: Path, names: Sequence[str]):
        super().__init__(names)
        self.folder = folder

    def check(self, place: int) -> None:
        self._path(place)

    def find(self, place: int) -> FoundImage:
        path = self._path(place)
        return FoundImage(path, str(path))

    def stamp(self, place: int) -> FileStamp | None:
        try:
            return file_stamp(self._path(place))
        except BrokenSample:
            return None

    def _path(self, place: int) -> Path:
        try:
            return locate(self.folder, self.names[place])
        except BrokenSample as fault:
            found = self._matches.places[place] if fault.reason == "missing image" else -1
            if found < 0:
                raise
            return self.folder / self._matches.files[found]

    def file_name(self, place: int) -> str:
        """Return the name of the file relative to the folder; where there is none, the name."""
        try:
            path = self._path(place)
        except BrokenSample:
            return self.names[place]
        is_inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if is_inside else self.names[place]

    @cached_property
    def _matches(self) -> "_Matches":
        """The match of the names with all files; the folder is listed only when one is missing."""
        files = walk_folder(self.folder).images
        title = self.folder.resolve().name
        samples = SampleNames([SampleName(name, name, title) for name in files])
        return _Matches(files, samples.match(self.names).places)


def files_of_names(folder: str | Path, names: Sequence[str]) -> list[str]:
    """Return the file below a folder that each name means, relative to it, as evaluation and
    training find it; a name that means none is returned as it is."""
    files = _Files(Path(folder), names)
    return [files.file_name(place) for place in range(len(names))]


class _Matches(NamedTuple):
    """Files of a folder, and for each name the place of its file, or -1."""

    files: list[str]
    places: list[int]


class _Samples(NamedImages):
    """Samples of shards, found by name with the rules for boxes (`SampleNames.match`)."""

    def __init__(self, shards: Sources, names: Sequence[str]):
        super().__init__(names)
        expand_sources(shards)  # a place that is not there is the first thing to say
        self.store = SampleStore(shards, texts=False)
        self.matches = names_of_samples(self.store).match(names)

    def check(self, place: int) -> None:
        if self.matches.places[place] < 0:
            detail = self.matches.details.get(place, "no sample of the shards has this name")
            raise BrokenSample("missing image", self.names[place], detail)

    def find(self, place: int) -> FoundImage:
        self.check(place)
        sample = self.store.read(self.matches.places[place])
        return FoundImage(sample.image, sample.name)

    def stamp(self, place: int) -> FileStamp | None:
        return None

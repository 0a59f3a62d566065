"""Images with one class each, for zero-shot classification: a folder for each class, or shards.

The image's shortest side is scaled to S and the central square taken, as for retrieval. One that
cannot be read is black, has the label -1 and says why.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.names import IMAGE_SUFFIXES
from clim_data.files.stamps import FileStamp, file_stamp
from clim_data.pixels.decode import load_rgb, pixels
from clim_data.pixels.transforms import center_crop
from clim_data.sources.expand import expand_sources
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


class ClassSample(NamedTuple):
    """image: uint8 (3, S, S); label: -1 when the image cannot be read; name of the image."""

    image: Tensor
    label: int
    name: str


class BrokenClassSample(ClassSample):
    """A black image without a class in place of one that cannot be read.

    fault: why it cannot be read.
    """

    fault: BrokenSample


def class_images(
    source: str | Path, image_px: int, *, names: Sequence[str] | None = None
) -> "ClassImages":
    """`ClassFolders` when ``source`` is a folder with folders of images, else `ClassShards` (which
    need ``names``).

    Raises FileNotFoundError and ValueError as these do.
    """
    path = Path(source)
    if path.is_dir() and not any(path.rglob("*.tar")):
        return ClassFolders(path, image_px, names=names)
    expand_sources(source)  # a place that is not there is the first thing to say
    if names is None:
        raise ValueError(
            f"{source} are shards, which name no classes: pass --names FILE with one class name a "
            "line"
        )
    return ClassShards(source, image_px, names=names)


class ClassImages(Dataset, ABC):
    """What both readers share; ``class_names[label]`` is the name of a label.

    ``left_out`` has what cannot be used and is known before any image is read; ``skipped`` has that
    and the images that could not be read.
    """

    left_out: tuple[BrokenSample, ...] = ()

    def __init__(self, image_px: int, class_names: Sequence[str]):
        self.image_px, self.class_names, self.skipped = image_px, list(class_names), SkipReport()

    def __getitem__(self, i: int) -> ClassSample:
        try:
            name, source, label = self.read(i)
            image = load_rgb(source, name=name, oriented=True)
            return ClassSample(center_crop(pixels(image), self.image_px), label, name)
        except BrokenSample as fault:
            self.skipped.add(fault)
            black = torch.zeros(3, self.image_px, self.image_px, dtype=torch.uint8)
            broken = BrokenClassSample(black, -1, fault.name)
            broken.fault = fault
            return broken

    def stamp(self, i: int) -> FileStamp | None:
        """Return what changes when the file of item i is replaced; None if it has none."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> tuple[str, bytes | Path, int]:
        """Name, encoded image and label of item i; BrokenSample when there is none."""

    @abstractmethod
    def listing(self) -> list[str]:
        """What tells this set of images from another."""

    def description(self) -> dict:
        """Fingerprint and counts for a report: equal for the same images and class names."""
        text = "\n".join([*self.class_names, "", *self.listing()])
        counts = {"images": len(self), "classes": len(self.class_names)}
        return {"fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16], "counts": counts}


class ClassFolders(ClassImages):
    """``FOLDER/CLASS/**/IMAGE``: a class for each folder, in the order of their names.

    Args:
        folder: holds the class folders.
        image_px: side of the square image.
        names: what the classes are called, in the order of the folders' names; default: the
            folders' names.

    Raises FileNotFoundError when there is no image, ValueError when there is another number of
    names than of folders.
    """

    def __init__(self, folder: str | Path, image_px: int, *, names: Sequence[str] | None = None):
        self.folder = Path(folder)
        found = sorted(path for path in self.folder.iterdir() if path.is_dir())
        self.items = [
            (path, label)
            for label, place in enumerate(found)
            for path in sorted(place.rglob("*"))
            if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES
        ]
        if not self.items:
            raise FileNotFoundError(
                f"{folder} has no folder with images: give a folder that holds one for each class"
            )
        if names is not None and len(names) != len(found):
            raise ValueError(
                f"{len(names)} names for {len(found)} class folders in {folder}: give one for each "
                "folder"
            )
        super().__init__(image_px, names if names is not None else [place.name for place in found])

    def __len__(self) -> int:
        return len(self.items)

    def read(self, i: int) -> tuple[str, Path, int]:
        path, label = self.items[i]
        return path.relative_to(self.folder).as_posix(), path, label

    def stamp(self, i: int) -> FileStamp | None:
        """Return what changes when the file of item i is replaced."""
        return file_stamp(self.items[i][0])

    def listing(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path, _ in self.items]


class ClassShards(ClassImages):
    """Shards whose samples say their class: "label" of the json, else the txt; a class's name or
    its number from 0.

    Args:
        sources: as `clim_data.sources.store.SampleStore` takes them.
        image_px: side of the square image.
        names: the class names, in the order of their numbers.
    """

    def __init__(
        self, sources: str | Path | Sequence[str | Path], image_px: int, *, names: Sequence[str]
    ):
        super().__init__(image_px, names)
        self.store = SampleStore(sources)
        self.left_out = tuple(self.store.skipped.faults)
        self.skipped.extend(self.left_out)
        self._label = {name: label for label, name in enumerate(self.class_names)}
        if not len(self.store):
            raise ValueError(
                f"{sources} hold no whole sample ({self.skipped.summary(3)}): check the shards"
            )

    def __len__(self) -> int:
        return len(self.store)

    def read(self, i: int) -> tuple[str, bytes, int]:
        sample = self.store.read(i)
        return sample.name, sample.image, self._class(sample)

    def listing(self) -> list[str]:
        return [self.store.fingerprint()]

    def _class(self, sample: RawSample) -> int:
        try:
            given = json.loads(sample.meta).get("label") if sample.meta is not None else None
            if given is None and sample.text is not None:
                given = sample.text.decode("utf-8").strip()
        except (ValueError, AttributeError) as fault:
            raise BrokenSample("bad json or txt", sample.name, str(fault)) from None
        name = str(given)
        label = self._label.get(name)
        if label is None and name.isdecimal() and int(name) < len(self.class_names):
            label = int(name)
        if label is None:
            raise BrokenSample(
                "unknown class",
                sample.name,
                f"{given!r} is none of the {len(self.class_names)} names",
            )
        return label

"""Images with one class each, for zero-shot classification: a folder for each class, or shards.

The image's shortest side is scaled to S and the central square taken, as for retrieval. An
unreadable image is black, and has the label -1 and its fault.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.stamps import FileStamp, file_stamp
from clim_data.files.text import decode_text, parse_json, plain_text
from clim_data.pixels.decode import load_rgb, pixels
from clim_data.pixels.transforms import center_crop
from clim_data.sources.expand import expand_sources
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore
from clim_data.sources.walk import walk_folder


class ClassSample(NamedTuple):
    """image: uint8 (3, S, S); label: -1 when the image cannot be read; name of the image."""

    image: Tensor
    label: int
    name: str


class BrokenClassSample(ClassSample):
    """A black image without a class, in place of an unreadable image.

    fault: the reason.
    """

    fault: BrokenSample


def class_images(
    source: str | Path, image_px: int, *, names: Sequence[str] | None = None
) -> "ClassImages":
    """Open a folder with folders of images as `ClassFolders`, shards as `ClassShards`.

    Raises:
        FileNotFoundError, ValueError: as these do; shards are given without `names`.
    """
    path = Path(source)
    if path.is_dir() and not walk_folder(path).shards:
        return ClassFolders(path, image_px, names=names)
    expand_sources(source)  # a place that is not there is the first thing to say
    if names is None:
        raise ValueError(
            f"{source} are shards, which name no classes: pass --names FILE with one class name a "
            "line"
        )
    return ClassShards(source, image_px, names=names)


class ClassImages(Dataset, ABC):
    """The parts that both readers share; ``class_names[label]`` is the name of a label.

    ``left_out`` has the faults that are known before any image is read; ``skipped`` has these and
    the unreadable images.
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
        """Return a value that changes when the file of item i is replaced; None if it has no
        file."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> tuple[str, bytes | Path, int]:
        """Return name, encoded image and label of item i; BrokenSample when there is none."""

    @abstractmethod
    def listing(self) -> list[str]:
        """List the facts that distinguish this set of images from others."""

    def description(self) -> dict:
        """Return fingerprint and counts for a report: equal for the same images and class names."""
        text = "\n".join([*self.class_names, "", *self.listing()])
        counts = {"images": len(self), "classes": len(self.class_names)}
        return {"fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16], "counts": counts}


class ClassFolders(ClassImages):
    """``FOLDER/CLASS/**/IMAGE``: a class for each folder, in the order of `class_order`.

    Hidden folders are no classes; a folder without images stays a class. `skipped` names images of
    other formats and folders that cannot be entered.

    Args:
        folder: holds the class folders.
        image_px: side of the square image.
        names: names of the classes. If they are the folders' names, in any order, each folder is
            the class of its name; else they follow the order of the folders. Default: the folders'
            names.

    Raises:
        FileNotFoundError: there is no image.
        ValueError: there is another number of names than of folders, or the order of the folders is
            in doubt.
    """

    def __init__(self, folder: str | Path, image_px: int, *, names: Sequence[str] | None = None):
        self.folder = Path(folder)
        content = walk_folder(folder)
        below = [path.name for path in self.folder.iterdir() if path.is_dir()]
        found = class_order(name for name in below if not name.startswith("."))
        told = f" ({SkipReport(content.faults).summary(3)})" if content.faults else ""
        if not any("/" in name for name in content.images):
            raise FileNotFoundError(
                f"{folder} has no folder with images{told}: give a folder that holds one for each "
                "class"
            )

        label_of = _labels(found, names, folder)
        self.items = []
        for name in sorted(content.images, key=PurePosixPath):
            place, inside, _ = name.partition("/")
            if inside:
                self.items.append((self.folder / name, label_of[place]))
        self.items.sort(key=lambda item: item[1])
        super().__init__(image_px, found if names is None else names)
        self.left_out = tuple(content.faults)
        self.skipped.extend(self.left_out)

    def __len__(self) -> int:
        return len(self.items)

    def read(self, i: int) -> tuple[str, Path, int]:
        """Return name, path and label of item i."""
        path, label = self.items[i]
        return path.relative_to(self.folder).as_posix(), path, label

    def stamp(self, i: int) -> FileStamp | None:
        """Return a value that changes when the file of item i is replaced."""
        return file_stamp(self.items[i][0])

    def listing(self) -> list[str]:
        """List the images by their names below the folder."""
        return [path.relative_to(self.folder).as_posix() for path, _ in self.items]


def class_order(folders: Iterable[str]) -> list[str]:
    """Return the names of class folders in the order of the classes.

    Whole numbers are in numerical order (0, 1, ..., 11), other names in alphabetical order.
    """
    names = sorted(folders)
    if all(name.isascii() and name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))
    return names


def _labels(folders: list[str], names: Sequence[str] | None, folder: str | Path) -> dict[str, int]:
    """Label of each class folder.

    Raises:
        ValueError: the names do not fit the folders, or could fit them in another order.
    """
    by_place = {name: label for label, name in enumerate(folders)}
    if names is None:
        return by_place
    if len(names) != len(folders):
        raise ValueError(
            f"{len(names)} names for {len(folders)} class folders in {folder}: give one for each "
            "folder"
        )
    if set(names) == set(folders):
        return {name: label for label, name in enumerate(names)}

    for label, name in enumerate(names):
        if by_place.get(name, label) != label:
            raise ValueError(
                f"{name} is name {label} of the list and folder {by_place[name]} of {folder}: give "
                "the names in the order of the folders, or name every folder as its class"
            )
    numbers = [_numbers_in(name) for name in folders]
    counted = len({re.sub(r"[0-9]+", "0", name) for name in folders}) == 1
    if counted and numbers != sorted(numbers):
        raise ValueError(
            f"folders of {folder} count in text order ({', '.join(folders[:3])}, ...): give their "
            "numbers equal lengths (01, 02, ..., 10), so that a list of names has one order"
        )
    return by_place


def _numbers_in(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


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
        """Return name, encoded image and label of item i; BrokenSample when there is none."""
        sample = self.store.read(i)
        return sample.name, sample.image, self._class(sample)

    def listing(self) -> list[str]:
        """List the fingerprint of the shards alone."""
        return [self.store.fingerprint()]

    def _class(self, sample: RawSample) -> int:
        try:
            meta = parse_json(sample.meta, sample.name) if sample.meta is not None else {}
            given = meta.get("label")
            if given is None and sample.text is not None:
                given = plain_text(decode_text(sample.text, sample.name))
        except AttributeError as fault:  # the json is no object
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

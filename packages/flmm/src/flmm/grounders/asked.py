"""Images of a folder or of shards, with the phrases to find in each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from clim_data import BrokenSample, SkipReport
from clim_data.pixels import load_rgb, open_image, orientation
from clim_data.sources import SampleStore, names_of_samples
from PIL import Image

from flmm.grounders.batches import PhraseItem, PhrasePreparer
from flmm.grounders.phrase_files import PhraseList


class PhraseImages:
    """The images of a folder, or of shards, and the phrases of each.

    Args:
        images: folder or shards, see `SampleStore`.
        phrases: to find.

    Attributes:
        names: of the images, relative to the folder. asked: numbers of the images that have
        phrases. faults: unusable images, known before any image is opened. classes: of a vocabulary
        whose phrases these are; None for plain phrases.

    Raises:
        FileNotFoundError, ValueError: no image, or no image that has phrases.
    """

    def __init__(self, images: str | Path, phrases: PhraseList):
        self.store = SampleStore(str(images), texts=False)
        found = names_of_samples(self.store)
        self.names = [sample.shown for sample in found.samples]
        self.categories, self.classes = phrases.categories, phrases.classes
        self.phrases, missing = phrases.for_images(found)
        self.asked = [number for number, own in enumerate(self.phrases) if own]
        self.faults = [*self.store.skipped.faults, *missing]
        if not self.asked:
            summary = SkipReport(self.faults).summary(3)
            raise ValueError(f"{images} has no image to look at ({summary}): check the path")

    def stamp(self) -> str:
        """Return a digest of the names and sizes of the images, and of their phrases."""
        parts: list[object] = [self.store.fingerprint(), self.names, self.phrases]
        if self.classes is not None:
            parts.append(self.classes.vocabulary)
        content = repr(tuple(parts))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class LoadedImage:
    """An image that a loading process has read.

    item: for the grounder. turn: EXIF orientation of the file. upright: the picture, if it will be
    drawn.
    """

    item: PhraseItem
    turn: int
    upright: Image.Image | None


@dataclass(frozen=True)
class LoadedImages:
    """Reads the images of a folder in loading processes. with_pixels: see `LoadedImage.upright`."""

    images: PhraseImages
    prepare: PhrasePreparer
    with_pixels: bool

    def __getitem__(self, number: int) -> LoadedImage | BrokenSample:
        store, name = self.images.store, self.images.names[number]
        try:
            data = store.read(number).image
            opened = open_image(data, name)
            turn = orientation(opened)
            upright = load_rgb(opened, name=name, oriented=True)
            item = self.prepare(number, upright, self.images.phrases[number], name=name)
            return LoadedImage(item, turn, upright if self.with_pixels else None)
        except BrokenSample as fault:
            return BrokenSample(fault.reason, name, fault.detail)

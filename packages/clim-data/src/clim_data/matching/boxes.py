"""Boxes of a COCO json as arrays, and the sample of the sources for each image of the json."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clim_data.annotations.records import BoxPass, reporter
from clim_data.annotations.tables import CategoryTable, ImageRecord, ImageTable, with_sizes
from clim_data.faults import BrokenSample, SampleWarning
from clim_data.matching.box_json import BoxRules, read_boxes, read_lists
from clim_data.matching.mask_texts import MaskTexts
from clim_data.pixels.frames import check_frame
from clim_data.pixels.mask_windows import MaskWindow
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


class ImageBoxes(NamedTuple):
    """Boxes (n, 4) XYXY in pixels and labels (n,) of one image, and a warning about its frame, or
    None."""

    boxes: Tensor
    labels: Tensor
    warning: SampleWarning | None


@dataclass(frozen=True)
class BoxTable:
    """Boxes of n images.

    boxes: float64 (N, 4), XYXY in pixels of the stored image, inside it. labels: int64 (N,), -1
    without categories. starts: int64 (n + 1,), where each image's boxes begin. sizes: int64 (n, 2),
    height and width that the json gives. class_names: by label, in the order of the category ids.
    images: (id, file name) of each image in the json. masks: of the N boxes, None if they were not
    read. frequencies, image_counts: of the classes, as in `CategoryTable`.
    """

    boxes: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    class_names: tuple[str, ...]
    images: tuple[tuple[Any, str], ...]
    masks: MaskTexts | None = None
    frequencies: tuple[str, ...] = ()
    image_counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    def of_image(self, sample: RawSample, image: Image.Image) -> "ImageBoxes":
        """Return the boxes and labels of the sample with its number.

        Args:
            sample: its number is the row of the table.
            image: the sample's image, opened and not turned.

        Raises:
            BrokenSample: the json has another size, so its boxes are in another frame.
        """
        height, width = self.sizes[sample.number].tolist()
        warning = check_frame(image, (height, width), sample.name)
        rows = slice(*self.starts[sample.number : sample.number + 2].tolist())
        boxes, labels = torch.from_numpy(self.boxes[rows]), torch.from_numpy(self.labels[rows])
        return ImageBoxes(boxes, labels, warning)

    def masks_of_image(self, number: int) -> list[MaskWindow] | None:
        """Decode the masks of an image's boxes; None where masks were not asked for."""
        if self.masks is None:
            return None
        rows = slice(*self.starts[number : number + 2].tolist())
        return self.masks.windows(rows, int(self.sizes[number, 0]))

    def owners(self) -> np.ndarray:
        """Return the number of the image of each box, int64 (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take_boxes(self, counted: np.ndarray) -> "BoxTable":
        """Return the table of all images with some of the boxes, by bool (N,)."""
        per_image = np.bincount(self.owners()[counted], minlength=len(self))
        return replace(
            self,
            boxes=self.boxes[counted],
            labels=self.labels[counted],
            starts=np.concatenate([[0], np.cumsum(per_image)]),
            masks=None if self.masks is None else self.masks.take(counted),
        )

    def take(self, rows: np.ndarray) -> "BoxTable":
        """Return the table of some of the images, in the order of `rows`."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        members = np.repeat(self.starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
        return replace(
            self,
            boxes=self.boxes[members],
            labels=self.labels[members],
            starts=starts,
            sizes=self.sizes[rows],
            images=tuple(self.images[row] for row in rows),
            masks=None if self.masks is None else self.masks.take(members),
        )

    def stamp(self) -> str:
        """Return a digest that changes with any box, label, class name or mask."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for array in (self.boxes, self.labels, self.starts):
            digest.update(array.tobytes())
        if self.masks is not None:
            digest.update(self.masks.spans.tobytes())
            digest.update(self.masks.text.tobytes())
        return digest.hexdigest()


def load_boxes(path: str | Path, store: SampleStore, rules: BoxRules) -> BoxTable:
    """Read the boxes of a COCO json for the samples of `store`, and drop samples without a box from
    the store.

    Image i of the table is sample i of the store. Records that cannot be used are reported to the
    store (see `SampleStore.report_fault`): images that no source contains, and annotations that the
    rules of `clim_data.annotations.records` refuse. Images without a box that counts are named in
    `skipped` too, but are no error.

    Raises:
        FileNotFoundError: no such json.
        ValueError: it is no COCO file with sizes of the images, it is refused as a whole, or no
            image of it has a sample and a box.
    """
    lists = read_lists(path, "images", *(["categories"] if rules.labelled else []))
    report = reporter(store.skipped, store.on_error)
    images = with_sizes(ImageTable.of(lists["images"], Path(path).name, report), report)
    categories = None
    if rules.labelled:
        categories = CategoryTable.of(lists["categories"], Path(path).name)

    found = read_boxes(path, BoxPass(images, categories, report), rules)
    names = _names_of(images, store)
    table = BoxTable(
        found.boxes,
        found.labels,
        np.concatenate([[0], np.cumsum(found.counts)]),
        np.array([image.size for image in images.values()], dtype=np.int64).reshape(-1, 2),
        categories.names if categories else (),
        tuple((image.id, image.name) for image in images.values()),
        found.masks,
        categories.frequencies if categories else (),
        categories.image_counts if categories else (),
    )
    matched = match_samples(names, store, path)
    used = np.flatnonzero(matched >= 0)
    empty = np.diff(table.starts)[matched[used]] == 0
    for row in matched[used[empty]].tolist():
        store.skipped.add(BrokenSample("no usable box", names[row]))

    used = used[~empty]
    if not len(used):
        raise ValueError(
            f"no image of the sources has a usable box in {path} ({store.skipped.summary(3)}): "
            "give the json that was made for these images"
        )
    has_box = np.zeros(len(store), dtype=bool)
    has_box[used] = True
    store.keep(has_box)
    return table.take(matched[used])


def keep_images(path: str | Path, store: SampleStore) -> None:
    """Drop samples from `store` that are not images of a COCO json; raises as `load_boxes`."""
    store.keep(match_samples([image.name for image in read_images(path, store)], store, path) >= 0)


def read_images(path: str | Path, store: SampleStore) -> list[ImageRecord]:
    """Read the usable images of a COCO json; the others are reported to the store.

    Raises:
        FileNotFoundError, ValueError: as `load_boxes`.
    """
    report = reporter(store.skipped, store.on_error)
    table = ImageTable.of(read_lists(path, "images")["images"], Path(path).name, report)
    _names_of(table, store)
    return list(table.values())


def _names_of(images: ImageTable, store: SampleStore) -> list[str]:
    """Return the names of the images; ValueError, which says why, when none is usable."""
    if not images:
        raise ValueError(
            f"no image of {images.file} can be used ({store.skipped.summary(3)}): repair the list"
        )
    return [image.name for image in images.values()]


def match_samples(names: Sequence[str], store: SampleStore, path: str | Path) -> np.ndarray:
    """Find the place in `names` of each sample of a store.

    Names find their samples as `SampleNames.match` says; names without one are reported to the
    store.

    Returns:
        int64 (len(store),), -1 for samples that are not named.

    Raises:
        ValueError: a name fits two samples, two names fit one, or nothing fits.
    """
    samples = names_of_samples(store)
    matches = samples.match(names)
    for row, place in enumerate(matches.places):
        if place < 0:
            detail = matches.details.get(row, "no source holds it")
            detail = f"{Path(path).name} names it, {detail}"
            store.report_fault(BrokenSample("missing image", names[row], detail))
    found = np.array(matches.rows(len(store)), dtype=np.int64)
    if not (found >= 0).any():
        first = samples.samples[0].shown if len(samples) else "nothing"
        told = next(iter(matches.details.values()), "")
        raise ValueError(
            f"the sources hold no image of {path}: it names {names[0] if names else 'none'}, they "
            f"hold {first}; {told}{'; ' if told else ''}"
            "give the folder that its file names start in, or shards whose keys are those names "
            "without ending"
        )
    return found

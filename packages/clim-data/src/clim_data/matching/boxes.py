"""Boxes of a COCO json as arrays, and which sample of the sources each image of the json is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.files.names import clean_name, image_file_name, leads_out
from clim_data.matching.box_json import BoxRules, read_boxes, read_lists
from clim_data.sources.sample_names import sample_names
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


@dataclass(frozen=True)
class BoxTable:
    """Boxes of n images.

    boxes: float64 (N, 4), XYXY in pixels of the stored image, as annotated. labels: int64 (N,), -1
    without categories. starts: int64 (n + 1,), where each image's boxes begin. sizes: int64 (n, 2),
    height and width that the json gives. class_names: by label, in the order of the category ids.
    images: (id, file name) of each image in the json.
    """

    boxes: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    class_names: tuple[str, ...]
    images: tuple[tuple[int | str, str], ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def of_image(self, sample: RawSample, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (n, 4) and labels (n,) of the sample with its number, an image of (height, width).

        Raises:
            BrokenSample: the json has another size, so its boxes are in another frame.
        """
        stated = tuple(self.sizes[sample.number].tolist())
        if stated != tuple(size):
            detail = (
                f"the image has {size[1]} x {size[0]} pixels, the json {stated[1]} x {stated[0]}"
            )
            raise BrokenSample(
                "size mismatch",
                sample.name,
                f"{detail}: use the images that the boxes were made for",
            )
        rows = slice(*self.starts[sample.number : sample.number + 2].tolist())
        return torch.from_numpy(self.boxes[rows]), torch.from_numpy(self.labels[rows])

    def take(self, rows: np.ndarray) -> "BoxTable":
        """The table of some of the images, in the order of `rows`."""
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
        )

    def stamp(self) -> str:
        """Changes with any box, label or class name."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for array in (self.boxes, self.labels, self.starts):
            digest.update(array.tobytes())
        return digest.hexdigest()


def load_boxes(path: str | Path, store: SampleStore, rules: BoxRules) -> BoxTable:
    """Boxes of a COCO json for the samples of `store`, which keeps those that have any.

    Image i of the table is sample i of the store. What cannot be used is noted in the store (see
    `SampleStore.note`): images that no source holds, boxes that name no image or no category, are
    no boxes, or lie outside their image. Images without a box that counts are named in `skipped`
    too, but are no error.

    Raises:
        FileNotFoundError: no such json.
        ValueError: it is no COCO file with sizes of the images, or no image of it has a sample and
            a box.
    """
    lists = read_lists(path, "images", *(["categories"] if rules.labelled else []))
    images, categories = lists["images"], lists.get("categories", [])
    names, rows = image_names(images, store)
    size_of = {images[row]["id"]: _size(images[row], path) for row in rows}
    if len(size_of) < len(rows):
        raise ValueError(f"{path}: two images have one id: give every image an id of its own")
    refused = frozenset(image["id"] for image in images) - size_of.keys()
    found = read_boxes(path, size_of, categories, store, rules, refused=refused)
    table = BoxTable(
        found.boxes,
        found.labels,
        np.concatenate([[0], np.cumsum(found.counts)]),
        np.array(list(size_of.values()), dtype=np.int64).reshape(-1, 2),
        tuple(str(c.get("name", c["id"])) for c in sorted(categories, key=lambda c: c["id"])),
        tuple(zip(size_of, names, strict=True)),
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
    kept = np.zeros(len(store), dtype=bool)
    kept[used] = True
    store.keep(kept)
    return table.take(matched[used])


def keep_images(path: str | Path, store: SampleStore) -> None:
    """Leave only those samples in `store` that are images of a COCO json; raises as
    `load_boxes`."""
    names, _ = image_names(read_lists(path, "images")["images"], store)
    store.keep(match_samples(names, store, path) >= 0)


def image_names(images: Sequence[dict], store: SampleStore) -> tuple[list[str], list[int]]:
    """(file names, places in the list) of the image records that have a name which stays in its
    folder."""
    names, rows = [], []
    for row, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise ValueError(f'image {row} has no "id": {image!r}; give a COCO-style file')
        try:
            name = image_file_name(image)
            if not isinstance(name, str) or leads_out(name):
                raise BrokenSample(
                    "path outside the folder", str(name), f"file_name of image {image.get('id')}"
                )
        except BrokenSample as fault:
            store.report_fault(fault)
            continue
        names.append(clean_name(name))
        rows.append(row)
    return names, rows


def match_samples(names: Sequence[str], store: SampleStore, path: str | Path) -> np.ndarray:
    """Place in `names` of each sample of `store`, -1 for those that are not named: int64
    (len(store),).

    Names find their samples as `SampleNames.match` says; names without one are noted in the store.

    Raises:
        ValueError: a name fits two samples, two names fit one, or nothing fits.
    """
    samples = sample_names(store)
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


def _size(image: dict, path: str | Path) -> tuple[int, int]:
    try:
        return int(image["height"]), int(image["width"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path}: image {image.get('id')!r} has no height and width: add them, in pixels"
        ) from None

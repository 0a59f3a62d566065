"""RefCOCO, RefCOCO+ and RefCOCOg: objects of COCO images and the expressions that refer to them.

Objects are grouped by image. A sample is either all objects of an image with one text of several
expressions, or one expression by itself; `PROTOCOLS` names the combinations that training and the
evaluations use.
"""

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from clim_data.annotations.refer_files import read_refs, refs_of_split, sentences_of
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json
from clim_data.files.names import image_file_name, inside
from clim_data.readers.grounding import CocoMasks, GroundingSample, Phrase
from clim_data.readers.grounding_stores import FileStore, GroundingStore, ShardStore, Stored
from clim_data.sources.expand import Sources
from clim_data.sources.items import PackItem, PackList

SENTENCES = ("all", "first", "random")

# How sentences are used: options of ReferringExpressions.
PROTOCOLS: dict[str, dict] = {
    # One sentence an object, drawn anew for every epoch; an image's objects share a text.
    "train": {"sentences": "random", "together": True},
    # The evaluation of F-LMM: the first sentence only, and later expressions of an image see the
    # earlier ones.
    "original": {"sentences": "first", "together": True},
    # The evaluation of the field: every sentence, each by itself.
    "standard": {"sentences": "all", "together": False},
}


class ReferringExpressions(Dataset):
    """Referring expressions as `GroundingSample`s, images in the order of the references file.

    Args:
        images_dir: COCO train2014 images, or train2017, where the same images have other names.
        refs: refs(unc).p, refs(umd).p, refs(google).p or a json with the same list; pickles are
            read without running code.
        instances_json: the instances.json beside it.
        split: "train", "val", "testA", "testB" or "test", as the file has them.
        sentences: "all", "first", or "random", one an object, a function of (seed, epoch, image).
        together: one sample an image; False: one sample an expression.
        text: "raw" (as typed, lower case) or "sent" (cleaned).
        bad_masks: "skip" leaves out objects without any valid polygon, "empty" gives them an empty
            mask, as F-LMM does.
        seed, redraw: of "random"; redraw=False keeps the sentences of epoch 0, as F-LMM does.

    `skipped` names objects and sentences that were left out.

    Raises:
        FileNotFoundError, ValueError: a file is missing or something else, the split is unknown, an
            option is illegal.
    """

    def __init__(
        self,
        images_dir: str | Path,
        refs: str | Path,
        instances_json: str | Path,
        *,
        split: str,
        sentences: str = "all",
        together: bool = False,
        text: str = "raw",
        bad_masks: str = "skip",
        seed: int = 0,
        redraw: bool = True,
    ):
        if not Path(images_dir).is_dir():
            raise FileNotFoundError(
                f"no image folder {images_dir}: `clim-data doctor` says where it comes from"
            )
        listing = expression_items(
            images_dir, refs, instances_json, split=split, text=text, bad_masks=bad_masks
        )
        store = FileStore(listing.items)
        self.skipped = SkipReport()
        self.skipped.extend(store.faults)
        if not len(store):
            raise ValueError(
                f"{refs} has no usable expression ({self.skipped.summary(3)}): give matching files"
            )
        self._use(store, sentences=sentences, together=together, seed=seed, redraw=redraw)

    @classmethod
    def from_shards(
        cls,
        shards: Sources,
        *,
        sentences: str = "all",
        together: bool = False,
        seed: int = 0,
        redraw: bool = True,
    ) -> "ReferringExpressions":
        """Read shards of `clim-data pack refcoco`, which hold one split; options as for the
        files."""
        made = cls.__new__(cls)
        store = ShardStore(shards)
        made.skipped = SkipReport()
        made.skipped.extend(store.faults)
        made._use(store, sentences=sentences, together=together, seed=seed, redraw=redraw)
        return made

    def _use(
        self, store: GroundingStore, *, sentences: str, together: bool, seed: int, redraw: bool
    ) -> None:
        if sentences not in SENTENCES:
            raise ValueError(
                f"sentences={sentences!r} is not known: choose from {', '.join(SENTENCES)}"
            )
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed={seed!r} must be a whole number of at least 0")
        self.store, self.sentences, self.together = store, sentences, together
        self.seed, self.redraw, self.epoch = seed, redraw, 0
        self._places = None if together else self._all_places()

    def set_epoch(self, epoch: int) -> None:
        """Choose the sentences of `dataset[i]`; only "random" depends on it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.store) if self._places is None else len(self._places)

    def stamp(self) -> str:
        """Changes with the expressions, their order, and how sentences are chosen."""
        drawn = f"|{self.seed}|{self.redraw}" if self.sentences == "random" else ""
        return f"{self.store.stamp()}|{self.sentences}|{self.together}{drawn}"

    def __getitem__(self, number: int) -> GroundingSample:
        return self.at(number, epoch=self.epoch)

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Sample of one epoch, a function of its arguments; BrokenSample when the image or its
        record is unusable."""
        try:
            return self._at(number, epoch)
        except (KeyError, TypeError) as fault:
            raise BrokenSample("malformed expressions", f"sample {number}", repr(fault)) from None

    def _at(self, number: int, epoch: int) -> GroundingSample:
        if self._places is None:
            stored = self.store[number]
            objects = _objects(stored)
            return self._sample(
                stored, [(o, s) for o in objects for s in self._chosen(o, stored, epoch)]
            )
        if not 0 <= number < len(self._places):
            raise IndexError(f"expression {number} of {len(self._places)}")
        image, place, sentence = self._places[number].tolist()
        stored = self.store[image]
        target = _objects(stored)[place]
        if self.sentences == "random":
            (chosen,) = self._chosen(target, stored, epoch)
        else:
            chosen = target["sentences"][sentence]
        return self._sample(stored, [(target, chosen)])

    def _all_places(self) -> np.ndarray:
        """int32 (M, 3): image, object and sentence of every sample of one expression."""
        places = []
        for image in range(len(self.store)):
            try:
                counts = [
                    len(target["sentences"])
                    for target in self.store.record(image).get("objects", ())
                ]
            except BrokenSample as fault:
                self.skipped.add(fault)
                continue
            except (KeyError, TypeError) as fault:
                self.skipped.add(
                    BrokenSample(
                        "malformed expressions", f"image {image} of the shards", repr(fault)
                    )
                )
                continue
            for place, count in enumerate(counts):
                places += [
                    (image, place, k) for k in range(count if self.sentences == "all" else 1)
                ]
        return np.array(places, dtype=np.int32).reshape(-1, 3)

    def _chosen(self, target: dict, stored: Stored, epoch: int) -> list:
        """[sentence id, text] of the sentences of an object that are used."""
        sentences = target["sentences"]
        if self.sentences == "all":
            return sentences
        if self.sentences == "first":
            return sentences[:1]
        rng = np.random.default_rng(
            (self.seed, epoch if self.redraw else 0, stored.record["image_id"], target["id"])
        )
        return [sentences[rng.integers(len(sentences))]]

    def _sample(self, stored: Stored, pairs: list[tuple[dict, list]]) -> GroundingSample:
        record = stored.record
        key = (
            record["key"]
            if self.together
            else f"{record['key']}-{pairs[0][0]['id']}-{pairs[0][1][0]}"
        )
        masks = CocoMasks(
            tuple(target["segmentation"] for target, _ in pairs),
            (record["height"], record["width"]),
            record["key"],
        )
        return GroundingSample(
            key=key,
            image_id=record["image_id"],
            kind="expressions",
            segments=tuple((text, i) for i, (_, (_, text)) in enumerate(pairs)),
            phrases=tuple(
                Phrase(text, False, True, (t["id"],), sent_id) for t, (sent_id, text) in pairs
            ),
            image=stored.image,
            mask_source=masks,
        )


def _objects(stored: Stored) -> list[dict]:
    if "objects" not in stored.record:
        raise BrokenSample(
            "no expressions", str(stored.record.get("key")), "pack it with `clim-data pack refcoco`"
        )
    return stored.record["objects"]


def expression_items(
    images_dir: str | Path,
    refs: str | Path,
    instances_json: str | Path,
    *,
    split: str,
    text: str = "raw",
    bad_masks: str = "skip",
) -> PackList:
    """One item an image with the objects and sentences of a split, to read or to pack, in the order
    of the file.

    Arguments are those of `ReferringExpressions`. When two references share an annotation it is one
    object with the sentences of both, the later reference's first. What was left out of an image
    stands as an item with a fault.
    """
    if text not in ("raw", "sent"):
        raise ValueError(f'text={text!r} is not known: use "raw" (as typed) or "sent" (cleaned)')
    if bad_masks not in ("skip", "empty"):
        raise ValueError(f'bad_masks={bad_masks!r} is not known: use "skip" or "empty"')
    chosen = refs_of_split(read_refs(refs), split)
    wanted = {ref["ann_id"] for ref in chosen}
    images, annotations = _instances(instances_json, {ref["image_id"] for ref in chosen}, wanted)
    groups: dict[int, dict[int, dict]] = {}
    left_out: list[BrokenSample] = []
    for ref in chosen:
        sentences, faults = sentences_of(ref, text)
        left_out += faults
        if not sentences:
            continue
        try:
            image = _image_of(images, ref)
            segmentation = _segmentation(annotations, ref, image, left_out)
        except BrokenSample as fault:
            left_out.append(fault)
            if fault.reason != "bad segmentation" or bad_masks == "skip":
                continue
            segmentation = []
        objects = groups.setdefault(ref["image_id"], {})
        target = objects.setdefault(
            ref["ann_id"], {"id": ref["ann_id"], "segmentation": segmentation, "sentences": []}
        )
        target["sentences"] = [*sentences, *target["sentences"]]
    items = [
        _item(images_dir, images[image_id], list(objects.values()))
        for image_id, objects in groups.items()
    ]
    items += [
        PackItem(f.name, str(images_dir), "", {}, {}, (f.reason, f.name, f.detail))
        for f in left_out
    ]
    return PackList("refcoco", items, {"split": split})


def _instances(
    path: str | Path, image_ids: set[int], ann_ids: set[int]
) -> tuple[dict[int, dict], dict[int, dict]]:
    """(image records, annotations) by id, of the wanted ones only."""
    images, annotations = {}, {}
    try:
        for table, item in stream_json(path):
            if table == "images" and item["id"] in image_ids:
                images[item["id"]] = item
            elif table == "annotations" and item["id"] in ann_ids:
                annotations[item["id"]] = item
    except (KeyError, TypeError) as fault:
        raise ValueError(
            f"{path} is not a COCO instances file ({fault!r}): give the instances.json of the set"
        ) from None
    return images, annotations


def _image_of(images: dict[int, dict], ref: dict) -> dict:
    image = images.get(ref["image_id"])
    if image is None or not all(isinstance(image.get(side), int) for side in ("height", "width")):
        raise BrokenSample(
            "unknown image", f"reference of annotation {ref['ann_id']}", f"image {ref['image_id']}"
        )
    return image


def _segmentation(
    annotations: dict[int, dict], ref: dict, image: dict, left_out: list[BrokenSample]
) -> list | dict:
    """Segmentation of a reference: RLE as it is, or its valid polygons; invalid ones are named in
    `left_out`."""
    name = f"annotation {ref['ann_id']}"
    if ref["ann_id"] not in annotations:
        raise BrokenSample("unknown annotation", name, "not in the instances file")
    given = annotations[ref["ann_id"]].get("segmentation")
    if isinstance(given, dict):
        if given.get("size") != [image["height"], image["width"]] or not given.get("counts"):
            raise BrokenSample("bad segmentation", name, f"RLE of size {given.get('size')}")
        return given
    polygons = given if isinstance(given, list) else []
    valid = [polygon for polygon in polygons if _is_polygon(polygon)]
    if not valid:
        raise BrokenSample("bad segmentation", name, "no polygon of three points")
    if len(valid) < len(polygons):
        left_out.append(
            BrokenSample("bad polygon", name, f"{len(polygons) - len(valid)} of {len(polygons)}")
        )
    return valid


def _is_polygon(polygon: object) -> bool:
    """Whether it is x, y, x, y, ... of at least three points."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(isinstance(value, int | float) and np.isfinite(value) for value in polygon)


def _item(images_dir: str | Path, image: dict, objects: list[dict]) -> PackItem:
    key = f"{image['id']:012d}"
    sizes = {side: image[side] for side in ("height", "width")}
    try:
        name = _name_in(images_dir, image)
    except BrokenSample as fault:
        return PackItem(key, str(images_dir), "", {}, {}, (fault.reason, fault.name, fault.detail))
    return PackItem(
        key,
        str(images_dir),
        name,
        {"image_id": image["id"], "file_name": name, **sizes, "objects": objects},
    )


def _name_in(images_dir: str | Path, image: dict) -> str:
    """Name of the image's file: COCO_train2014_000000000009.jpg, or 000000000009.jpg as COCO 2017
    has it."""
    name = image_file_name(image)
    newer = name.rpartition("_")[2]
    if (
        newer != name
        and not inside(images_dir, name).is_file()
        and inside(images_dir, newer).is_file()
    ):
        return newer
    inside(images_dir, name)
    return name

"""Panoptic Narrative Grounding (arXiv 2109.04988): narratives whose phrases mean segments of a
panoptic png.

A narrative is a list of segments; one with segment ids is a phrase, its mask the union of the ids.
Narratives without any phrase are skipped and counted, never replaced by another.
"""

from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import Dataset

from clim_data.annotations.ids import Key, id_key, need_object
from clim_data.annotations.narrative_files import NarrativeRecord
from clim_data.annotations.panoptic import SegmentIndex
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json
from clim_data.readers.grounding import NO_PHRASE, GroundingSample, PanopticMasks, Phrase
from clim_data.readers.grounding_stores import FileStore, GroundingStore, ShardStore, StoredRecord
from clim_data.sources.expand import Sources
from clim_data.sources.items import PackItem, PackList

PANOPTIC = "panoptic.png"


class PanopticNarratives(Dataset):
    """Narratives as `GroundingSample`s, in the order of the file; `skipped` names the skipped ones.

    Args:
        images_dir: COCO images, train2017 or val2017.
        narratives_json: png_coco_train2017.json or png_coco_val2017.json.
        panoptic_json, panoptic_dir: COCO panoptic annotations of the same split and their png
            files.

    Raises:
        FileNotFoundError, ValueError: a file or folder is missing or is something else, or no
            narrative has a phrase.
    """

    def __init__(
        self,
        images_dir: str | Path,
        narratives_json: str | Path,
        panoptic_json: str | Path,
        panoptic_dir: str | Path,
    ):
        for folder, what in ((images_dir, "image"), (panoptic_dir, "segmentation")):
            if not Path(folder).is_dir():
                raise FileNotFoundError(
                    f"no {what} folder {folder}: `clim-data doctor` says where it comes from"
                )
        self.store: GroundingStore = FileStore(
            _narratives(images_dir, narratives_json, panoptic_json, panoptic_dir)
        )
        self.skipped = SkipReport()
        self.skipped.extend(self.store.faults)
        if not len(self.store):
            raise ValueError(
                f"{narratives_json} has no usable narrative ({self.skipped.summary(3)}): give "
                "matching files"
            )

    @classmethod
    def from_shards(cls, shards: Sources) -> "PanopticNarratives":
        """Read shards of `clim-data pack png`; FileNotFoundError when there is none."""
        made = cls.__new__(cls)
        made.store, made.skipped = ShardStore(shards), SkipReport()
        made.skipped.extend(made.store.faults)
        return made

    def __len__(self) -> int:
        return len(self.store)

    def stamp(self) -> str:
        """Return a text that changes with the narratives and their order."""
        return self.store.stamp()

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Return a sample of one epoch, as `ReferringExpressions.at`: all epochs are alike."""
        return self[number]

    def __getitem__(self, number: int) -> GroundingSample:
        """BrokenSample when the image is missing, or a shard does not hold narratives."""
        stored = self.store[number]
        if "phrases" not in stored.record or PANOPTIC not in stored.files:
            raise BrokenSample(
                "not a narrative",
                str(stored.record.get("key")),
                "pack it with `clim-data pack png`",
            )
        try:
            return self._sample(stored)
        except (KeyError, TypeError, ValueError) as fault:
            raise BrokenSample(
                "malformed narrative", str(stored.record.get("key")), repr(fault)
            ) from None

    def _sample(self, stored: StoredRecord) -> GroundingSample:
        record, phrases = stored.record, stored.record["phrases"]
        texts = {phrase: text for text, phrase in record["segments"]}
        masks = PanopticMasks(
            stored.files[PANOPTIC], tuple(tuple(p["ids"]) for p in phrases), record["key"]
        )
        return GroundingSample(
            key=record["key"],
            image_id=record["image_id"],
            kind="narrative",
            segments=tuple((text, phrase) for text, phrase in record["segments"]),
            phrases=tuple(
                Phrase(texts[i], p["plural"], p["thing"], tuple(p["ids"]))
                for i, p in enumerate(phrases)
            ),
            image=stored.image,
            mask_source=masks,
        )


def narrative_items(
    images_dir: str | Path,
    narratives_json: str | Path,
    panoptic_json: str | Path,
    panoptic_dir: str | Path,
) -> PackList:
    """List the narratives of a file in its order, to read or to pack.

    Those that cannot be used have a fault. A key is the image's id and the narrative's place in the
    file. A plural phrase counts as a thing; the category decides about a singular one.

    Raises:
        FileNotFoundError, ValueError: a file is missing or is something else.
    """
    return PackList(
        "png", list(_narratives(images_dir, narratives_json, panoptic_json, panoptic_dir))
    )


def _narratives(
    images_dir: str | Path,
    narratives_json: str | Path,
    panoptic_json: str | Path,
    panoptic_dir: str | Path,
) -> Iterator[PackItem]:
    left_out: list[BrokenSample] = []
    index = SegmentIndex.read(panoptic_json, left_out.append)
    for fault in left_out:
        yield _item_with_fault(images_dir, fault.name, fault)

    for number, (table, record) in enumerate(stream_json(narratives_json)):
        if table:
            raise ValueError(
                f"{narratives_json} is not a list of narratives: give png_coco_train2017.json or "
                "_val2017"
            )
        key = f"narrative {number}"
        try:
            key = f"{need_object(record, key).get('image_id', '')!s:0>12}-{number}"
            narrative = NarrativeRecord.of(record, key)
            yield _item(images_dir, panoptic_dir, key, narrative, index)
        except BrokenSample as fault:
            yield _item_with_fault(images_dir, key, fault)


def _item_with_fault(images_dir: str | Path, key: str, fault: BrokenSample) -> PackItem:
    reason = fault.reason, fault.name, fault.detail
    return PackItem(key, str(images_dir), "", {}, {}, reason)


def _item(
    images_dir: str | Path,
    panoptic_dir: str | Path,
    key: str,
    narrative: NarrativeRecord,
    index: SegmentIndex,
) -> PackItem:
    """Return a narrative as an item; BrokenSample when an image or segment is not usable."""
    image = index.images.get(narrative.image)
    if image is None or narrative.image not in index.drawn:
        detail = f"image {narrative.image} is not in the panoptic file"
        raise BrokenSample("unknown image", key, detail)

    texts: list[list] = []
    phrases: list[dict] = []
    for text, ids, is_plural in narrative.segments:
        if not ids or not text.strip():
            texts.append([text, NO_PHRASE])
            continue
        things = [_is_thing(index, narrative.image, i, key, text) for i in ids]
        texts.append([text, len(phrases)])
        phrases.append({"ids": list(ids), "plural": is_plural, "thing": is_plural or any(things)})
    if not phrases:
        raise BrokenSample("no phrase", key, "no segment of the narrative has a mask")

    record = {
        "image_id": id_key(image.id),
        "file_name": image.name,
        "segments": texts,
        "phrases": phrases,
    }
    png, _ = index.drawn[narrative.image]
    files = {PANOPTIC: (str(panoptic_dir), png)}
    return PackItem(key, str(images_dir), image.name, record, files, size=image.size)


def _is_thing(index: SegmentIndex, image: Key, segment_id: int, key: str, text: str) -> bool:
    try:
        return index.is_thing(image, segment_id)
    except BrokenSample as fault:
        detail = f"{segment_id} of {text!r}: {fault.name}: {fault.detail}"
        raise BrokenSample(fault.reason, key, detail) from None

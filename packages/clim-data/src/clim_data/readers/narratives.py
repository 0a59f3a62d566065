"""Panoptic Narrative Grounding (arXiv 2109.04988): narratives whose phrases mean segments of a
panoptic png.

A narrative is a list of segments; one with segment ids is a phrase, its mask the union of the ids.
Narratives without any phrase are left out and counted, never replaced by another.
"""

from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json
from clim_data.files.names import image_file_name, inside
from clim_data.readers.grounding import NO_PHRASE, GroundingSample, PanopticMasks, Phrase
from clim_data.readers.grounding_stores import FileStore, GroundingStore, ShardStore, Stored
from clim_data.sources.expand import Sources
from clim_data.sources.items import PackItem, PackList

PANOPTIC = "panoptic.png"


class PanopticNarratives(Dataset):
    """Narratives as `GroundingSample`s, in the order of the file; `skipped` names those that were
    left out.

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
        """Changes with the narratives and their order."""
        return self.store.stamp()

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Sample of one epoch, as `ReferringExpressions.at`: narratives are the same in all."""
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

    def _sample(self, stored: Stored) -> GroundingSample:
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
    """One item a narrative, to read or to pack, in file order; those that cannot be used have a
    fault.

    A key is the image's id and the narrative's place in the file. A plural phrase counts as a
    thing, a singular one is what its category is.

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
    images, things, drawn = _panoptic(panoptic_json)
    for number, (table, narrative) in enumerate(stream_json(narratives_json)):
        if table or not isinstance(narrative, dict):
            raise ValueError(
                f"{narratives_json} is not a list of narratives: give png_coco_train2017.json or "
                "_val2017"
            )
        key = f"{narrative.get('image_id', '')!s:0>12}-{number}"
        try:
            image_id = int(narrative["image_id"])
            if image_id not in images or image_id not in drawn:
                raise BrokenSample(
                    "unknown image", key, f"image {image_id} is not in the panoptic file"
                )
            name = image_file_name(images[image_id])
            inside(images_dir, name)
            png, categories = drawn[image_id]
            is_thing = {segment: things[category] for segment, category in categories.items()}
            texts, phrases = _parse(narrative["segments"], is_thing, key)
            record = {
                "image_id": image_id,
                "file_name": name,
                "segments": texts,
                "phrases": phrases,
            }
            yield PackItem(key, str(images_dir), name, record, {PANOPTIC: (str(panoptic_dir), png)})
        except BrokenSample as fault:
            yield PackItem(
                key, str(images_dir), "", {}, {}, (fault.reason, fault.name, fault.detail)
            )
        except (KeyError, TypeError, ValueError) as fault:
            yield PackItem(
                key, str(images_dir), "", {}, {}, ("malformed narrative", key, repr(fault))
            )


def _panoptic(
    path: str | Path,
) -> tuple[dict[int, dict], dict[int, bool], dict[int, tuple[str, dict[int, int]]]]:
    """(image records, is_thing of the categories, png name and category of every segment of the
    images), by id."""
    images, things, drawn = {}, {}, {}
    try:
        for table, item in stream_json(path):
            if table == "images":
                images[item["id"]] = item
            elif table == "categories":
                things[item["id"]] = bool(item.get("isthing", 1))
            elif table == "annotations":
                categories = {info["id"]: info["category_id"] for info in item["segments_info"]}
                drawn[item["image_id"]] = (item["file_name"], categories)
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(
            f"{path} is not a COCO panoptic file ({fault!r}): give panoptic_train2017.json or "
            "_val2017"
        ) from None
    if not images or not things or not drawn:
        raise ValueError(
            f"{path} lacks images, categories or annotations: give panoptic_train2017.json or "
            "_val2017"
        )
    return images, things, drawn


def _parse(segments: list[dict], drawn: dict[int, bool], key: str) -> tuple[list[list], list[dict]]:
    """([[text, phrase index or -1]], [{"ids", "plural", "thing"}]) of the segments of a
    narrative."""
    texts: list[list] = []
    phrases: list[dict] = []
    for text, ids, plural in _fields(segments):
        if not ids or not text.strip():
            texts.append([text, NO_PHRASE])
            continue
        unknown = [i for i in ids if i not in drawn]
        if unknown:
            raise BrokenSample(
                "unknown segment", key, f"{unknown} of {text!r} are not in the panoptic file"
            )
        texts.append([text, len(phrases)])
        phrases.append(
            {"ids": ids, "plural": plural, "thing": plural or any(drawn[i] for i in ids)}
        )
    if not phrases:
        raise BrokenSample("no phrase", key, "no segment of the narrative has a mask")
    return texts, phrases


def _fields(segments: list[dict]) -> Iterator[tuple[str, list[int], bool]]:
    for segment in segments:
        yield (
            str(segment["utterance"]),
            [int(i) for i in segment["segment_ids"]],
            bool(segment["plural"]),
        )

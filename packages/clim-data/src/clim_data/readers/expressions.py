"""RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO: objects of COCO images, and expressions that refer to
them.

Objects are grouped by image. A sample is either all objects of an image with one text of several
expressions, or one expression by itself; `PROTOCOLS` names the combinations that training and the
evaluations use. An expression of gRefCOCO means one object, several together, or none: its phrase
then has several `objects`, or none and an empty mask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SkipReport
from clim_data.readers.expression_items import check_expression_options, expression_items
from clim_data.readers.grounding import CocoMasks, GroundingSample, Phrase
from clim_data.readers.grounding_stores import FileStore, GroundingStore, ShardStore, StoredRecord
from clim_data.sources.expand import Sources

SENTENCES = ("all", "first", "random")

# Uses of sentences: options of ReferringExpressions.
PROTOCOLS: dict[str, dict] = {
    # One sentence an object, drawn anew for every epoch; an image's objects share a text.
    "train": {"sentences": "random", "together": True},
    # The evaluation of F-LMM: the first sentence only, and later expressions of an image see the
    # earlier ones.
    "original": {"sentences": "first", "together": True},
    # The evaluation of the field: every sentence, each by itself.
    "standard": {"sentences": "all", "together": False},
}


@dataclass(frozen=True, kw_only=True)
class ExpressionRules:
    """Rules for the sentences.

    Raises:
        ValueError: a rule is unknown or out of range.
    """

    sentences: str = "all"
    """"all", "first", or "random": one per object, a function of (seed, epoch, image)."""
    together: bool = False
    """One sample per image with all its objects; False: one sample per expression."""
    text: str = "raw"
    """"raw" (as typed, lower case) or "sent" (cleaned)."""
    bad_masks: str = "skip"
    """"skip" leaves out objects without a usable segmentation, "empty" gives them an empty mask, as
    F-LMM does."""
    seed: int = 0
    """Of "random"."""
    redraw: bool = True
    """False keeps the random sentences of epoch 0, as F-LMM does."""

    def __post_init__(self) -> None:
        if self.sentences not in SENTENCES:
            raise ValueError(
                f"sentences={self.sentences!r} is not known: choose from {', '.join(SENTENCES)}"
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r} must be a whole number of at least 0")
        check_expression_options(self.text, self.bad_masks)


class ExpressionKeywords(TypedDict, total=False):
    """The fields of `ExpressionRules` as keywords of the reader, for one release."""

    sentences: str
    together: bool
    text: str
    bad_masks: str
    seed: int
    redraw: bool


def _choose(rules: ExpressionRules | None, keywords: Mapping[str, Any]) -> ExpressionRules:
    """Return `rules`, or make them of `keywords`; ValueError for both."""
    if rules is not None and keywords:
        raise ValueError(f"{', '.join(keywords)} given next to rules: set it in ExpressionRules")
    return rules or ExpressionRules(**keywords)


class ReferringExpressions(Dataset):
    """Referring expressions as `GroundingSample`s, images in the order of the references file.

    Args:
        images_dir: COCO train2014 images, or train2017, where the same images have other names.
        refs: refs(unc).p, refs(umd).p, refs(google).p, grefs(unc).json or a json with such a list;
            pickles are read without running code.
        instances_json: the instances.json next to it.
        split: "train", "val", "testA", "testB" or "test", as the file has them.
        rules: for the sentences.
        keywords: the fields of `rules` one by one; accepted in its place for one release.

    `skipped` names skipped references, objects and sentences.

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
        rules: ExpressionRules | None = None,
        **keywords: Unpack[ExpressionKeywords],
    ):
        rules = _choose(rules, keywords)
        if not Path(images_dir).is_dir():
            raise FileNotFoundError(
                f"no image folder {images_dir}: `clim-data doctor` says where it comes from"
            )
        listing = expression_items(
            images_dir,
            refs,
            instances_json,
            split=split,
            text=rules.text,
            bad_masks=rules.bad_masks,
        )
        store = FileStore(listing.items)
        self.skipped = SkipReport(store.faults)
        if not len(store):
            raise ValueError(
                f"{refs} has no usable expression ({self.skipped.summary(3)}): give matching files"
            )
        self._use(store, rules)

    @classmethod
    def from_shards(
        cls,
        shards: Sources,
        *,
        rules: ExpressionRules | None = None,
        **keywords: Unpack[ExpressionKeywords],
    ) -> "ReferringExpressions":
        """Read shards of `clim-data pack refcoco`, which hold one split.

        Raises:
            ValueError: `text` or `bad_masks` are chosen, which were settled when it was packed.
        """
        rules = _choose(rules, keywords)
        if (rules.text, rules.bad_masks) != (ExpressionRules.text, ExpressionRules.bad_masks):
            raise ValueError(
                f"text={rules.text!r}, bad_masks={rules.bad_masks!r} have no effect on shards: "
                "pass them to `clim-data pack refcoco`"
            )
        made = cls.__new__(cls)
        store = ShardStore(shards)
        made.skipped = SkipReport(store.faults)
        made._use(store, rules)
        return made

    def _use(self, store: GroundingStore, rules: ExpressionRules) -> None:
        self.store, self.rules = store, rules
        self.sentences, self.together = rules.sentences, rules.together
        self.seed, self.redraw, self.epoch = rules.seed, rules.redraw, 0
        self._places = None if rules.together else self._all_places()

    def set_epoch(self, epoch: int) -> None:
        """Choose the sentences of `dataset[i]`; only "random" depends on it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.store) if self._places is None else len(self._places)

    def stamp(self) -> str:
        """Return a text that changes with the expressions, their order and the chosen sentences."""
        drawn = f"|{self.seed}|{self.redraw}" if self.sentences == "random" else ""
        return f"{self.store.stamp()}|{self.sentences}|{self.together}{drawn}"

    def __getitem__(self, number: int) -> GroundingSample:
        return self.at(number, epoch=self.epoch)

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Return a sample of one epoch, a function of the arguments.

        Raises:
            BrokenSample: the image or its record cannot be used.
        """
        try:
            return self._at(number, epoch)
        except (KeyError, TypeError) as fault:
            raise BrokenSample("malformed expressions", f"sample {number}", repr(fault)) from None

    def _at(self, number: int, epoch: int) -> GroundingSample:
        if self._places is None:
            stored = self.store[number]
            objects = _objects(stored)
            pairs = []
            for target in objects:
                pairs += [
                    (target, chosen) for chosen in self._choose_sentences(target, stored, epoch)
                ]
            return self._sample(stored, pairs)
        if not 0 <= number < len(self._places):
            raise IndexError(f"expression {number} of {len(self._places)}")
        image, place, sentence = self._places[number].tolist()
        stored = self.store[image]
        target = _objects(stored)[place]
        if self.sentences == "random":
            (chosen,) = self._choose_sentences(target, stored, epoch)
        else:
            chosen = target["sentences"][sentence]
        return self._sample(stored, [(target, chosen)])

    def _all_places(self) -> np.ndarray:
        """int32 (M, 3): image, object and sentence of every sample of one expression."""
        places = []
        for image in range(len(self.store)):
            try:
                objects = self.store.record(image).get("objects", ())
                counts = [len(target["sentences"]) for target in objects]
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
                used = count if self.sentences == "all" else 1
                places += [(image, place, sentence) for sentence in range(used)]
        return np.array(places, dtype=np.int32).reshape(-1, 3)

    def _choose_sentences(self, target: dict, stored: StoredRecord, epoch: int) -> list:
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

    def _sample(self, stored: StoredRecord, pairs: list[tuple[dict, list]]) -> GroundingSample:
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
            phrases=tuple(_phrase(target, *sentence) for target, sentence in pairs),
            image=stored.image,
            mask_source=masks,
        )


def _phrase(target: dict, sentence_id: int, text: str) -> Phrase:
    objects = tuple(target.get("annotations", (target["id"],)))
    return Phrase(text, len(objects) > 1, True, objects, sentence_id)


def _objects(stored: StoredRecord) -> list[dict]:
    if "objects" not in stored.record:
        raise BrokenSample(
            "no expressions", str(stored.record.get("key")), "pack it with `clim-data pack refcoco`"
        )
    return stored.record["objects"]

"""Referring-expression files: the pickles and json files of RefCOCO, RefCOCO+, RefCOCOg and
gRefCOCO."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data.annotations.ids import Key, id_key, need_object, record_name
from clim_data.faults import BrokenSample
from clim_data.files.pickles import load_plain_pickle
from clim_data.files.text import plain_text

NO_TARGET = -1


@dataclass(frozen=True)
class ReferRecords:
    """The references of a file. refs: usable ones, with "image_id" as key, "ann_ids" (keys of the
    annotations that are meant together, none where nothing is meant), "target" (key that names
    them) and "name" for errors. faults: one for each skipped reference."""

    file: str
    refs: list[dict]
    faults: list[BrokenSample]

    @classmethod
    def read(cls, path: str | Path) -> "ReferRecords":
        """Read `refs(unc).p`, `refs(umd).p`, `refs(google).p`, `grefs(unc).json`, or a json with
        such a list.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is neither, or has no reference with "image_id", "ann_id", "split" and
                "sentences".
        """
        path = Path(path)
        refs = _read_list(path)
        usable, faults = [], []
        of_id: dict[Any, Any] = {}
        for number, ref in enumerate(refs):
            name = record_name(path.name, "reference", number, ref, "ref_id")
            try:
                checked = _checked(ref, name)
                own_id = id_key(checked.get("ref_id"))
                if own_id is not None and of_id.setdefault(own_id, ref) is not ref:
                    _refuse_copy(ref, of_id[own_id], name)
                usable.append(checked)
            except BrokenSample as fault:
                faults.append(fault)
        if faults and not usable:
            raise ValueError(f"{path} has no usable reference ({faults[0]}): fetch it again")
        return cls(path.name, usable, faults)


def _refuse_copy(ref: dict, first: dict, name: str) -> None:
    """Raise BrokenSample for a reference that is the copy of another: it would count twice."""
    if ref == first:
        raise BrokenSample("reference twice", name, "the file has it before, with the same content")


def _read_list(path: Path) -> list[Any]:
    """Read the list of references as the file has it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no references file {path}: `clim-data doctor` says where it comes from"
        )
    data = path.read_bytes()
    if path.suffix == ".json":
        try:
            refs = json.loads(data)
        except (ValueError, RecursionError) as fault:
            raise ValueError(
                f"{path} is not valid json ({fault}): fetch it again, it may be cut off"
            ) from None
    else:
        try:
            refs = load_plain_pickle(data)
        except ValueError as fault:
            raise ValueError(f"{path}: {fault}") from None
    if not isinstance(refs, list) or not any(isinstance(ref, dict) for ref in refs):
        raise ValueError(
            f"{path} is not a list of references: give refs(unc).p, refs(umd).p, refs(google).p or "
            "a json"
        )
    return refs


def _checked(given: Any, name: str) -> dict:
    """Return a reference with ids as keys; BrokenSample when a field is missing or wrong."""
    ref = need_object(given, name)
    image, annotations, target = id_key(ref.get("image_id")), *_targets(ref)
    found = {"image_id": image, "ann_id": annotations, "ref_id": target}
    wrong = [field for field, key in found.items() if key is None]
    wrong += [] if isinstance(ref.get("split"), str) else ["split"]
    wrong += [] if isinstance(ref.get("sentences"), list) else ["sentences"]
    if wrong:
        raise BrokenSample("bad reference", name, f"no usable {', '.join(wrong)}")
    return {**ref, "image_id": image, "ann_ids": annotations, "target": target, "name": name}


def _targets(ref: dict) -> tuple[tuple[Key, ...] | None, Key | None]:
    """Return the annotations that a reference means together, and the key that names them.

    RefCOCO has one id, which is its own name. gRefCOCO has a list, [-1] where nothing is meant, and
    its references are named by "ref_id". None for what cannot be used.
    """
    given = ref.get("ann_id")
    if not isinstance(given, list):
        key = id_key(given)
        return (None, NO_TARGET) if key is None else ((key,), key)
    keys = [id_key(one) for one in given]
    usable = tuple(key for key in keys if key is not None and key != NO_TARGET)
    is_sound = keys == [NO_TARGET] or (len(usable) == len(keys) > 0)
    return (usable, id_key(ref.get("ref_id"))) if is_sound else (None, NO_TARGET)


def refs_of_split(refs: list[dict], split: str) -> list[dict]:
    """Return the references of one split in file order; ValueError lists the splits there are."""
    chosen = [ref for ref in refs if ref["split"] == split]
    if not chosen:
        counts = Counter(ref["split"] for ref in refs)
        found = ", ".join(f"{name} ({count:,})" for name, count in counts.items())
        raise ValueError(f"split={split!r} has no reference: choose from {found}")
    return chosen


def sentences_of(ref: dict, text: str) -> tuple[list[tuple[int, str]], list[BrokenSample]]:
    """Return ([(sentence id, lower-case text)], faults) of a reference.

    Args:
        ref: of `ReferRecords`.
        text: "raw" (as typed, which F-LMM reads) or "sent" (cleaned, without punctuation).
    """
    sentences: list[tuple[int, str]] = []
    faults = []
    for number, sentence in enumerate(ref["sentences"]):
        name = f"{ref['name']}, sentence {number + 1}"
        value = sentence.get(text) if isinstance(sentence, dict) else None
        if not isinstance(value, str) or not plain_text(value):
            faults.append(BrokenSample("empty expression", name, f'no text in "{text}"'))
            continue
        sent_id = sentence.get("sent_id")
        sentences.append((sent_id if type(sent_id) is int else number, value.lower()))
    return sentences, faults


def with_own_ids(
    sentences: list[tuple[int, str]], others: list[tuple[int, str]]
) -> list[tuple[int, str]]:
    """Return sentences whose ids differ from each other and from `others`.

    An id and its annotation name a result, so two equal ids would be one result. A sentence whose
    id is taken gets the next free number.
    """
    taken = {number for number, _ in others}
    own = []
    for number, text in sentences:
        if number in taken:
            number = max(taken) + 1
        taken.add(number)
        own.append((number, text))
    return own

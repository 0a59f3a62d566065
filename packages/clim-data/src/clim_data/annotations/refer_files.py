"""Referring-expression files: the pickles and json files of RefCOCO, RefCOCO+ and RefCOCOg."""

import json
from collections import Counter
from pathlib import Path

from clim_data.faults import BrokenSample
from clim_data.files.pickles import load_plain_pickle


def read_refs(path: str | Path) -> list[dict]:
    """The references of `refs(unc).p`, `refs(umd).p`, `refs(google).p`, or of a json file with the
    same list.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is neither, or not a list of references with "image_id", "ann_id", "split"
            and "sentences".
    """
    path = Path(path)
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
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(
            f"{path} is not a list of references: give refs(unc).p, refs(umd).p, refs(google).p or "
            "a json"
        )
    for number, ref in enumerate(refs):
        wrong = [
            k
            for k, kind in (("image_id", int), ("ann_id", int), ("split", str))
            if type(ref.get(k)) is not kind
        ]
        if wrong or not isinstance(ref.get("sentences"), list):
            raise ValueError(
                f"{path}: reference {number} has no usable {', '.join(wrong) or 'sentences'}; "
                "fetch it again"
            )
    return refs


def refs_of_split(refs: list[dict], split: str) -> list[dict]:
    """References of one split in file order; ValueError lists the splits there are."""
    chosen = [ref for ref in refs if ref["split"] == split]
    if not chosen:
        found = ", ".join(
            f"{name} ({count:,})" for name, count in Counter(ref["split"] for ref in refs).items()
        )
        raise ValueError(f"split={split!r} has no reference: choose from {found}")
    return chosen


def sentences_of(ref: dict, text: str) -> tuple[list[tuple[int, str]], list[BrokenSample]]:
    """([(sentence id, lower-case text)], faults) of a reference.

    Args:
        text: "raw" (as typed, which F-LMM reads) or "sent" (cleaned, without punctuation).
    """
    sentences, faults = [], []
    for number, sentence in enumerate(ref["sentences"]):
        name = f"reference {ref.get('ref_id', ref['ann_id'])} sentence {number}"
        value = sentence.get(text) if isinstance(sentence, dict) else None
        if not isinstance(value, str) or not value.strip():
            faults.append(BrokenSample("empty expression", name, f'no text in "{text}"'))
        else:
            sent_id = sentence.get("sent_id")
            sentences.append((sent_id if isinstance(sent_id, int) else number, value.lower()))
    return sentences, faults

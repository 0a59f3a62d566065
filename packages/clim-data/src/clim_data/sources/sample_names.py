"""The names of the samples of a store, for everything that joins records with samples by name."""

import json
import os
from pathlib import Path

from clim_data.faults import BrokenSample
from clim_data.files.identity import SampleName, SampleNames
from clim_data.files.names import clean_name, leads_out
from clim_data.sources.folders import FolderIndex
from clim_data.sources.store import SampleStore

META = 2  # place of the json among the spans of a shard's sample


def sample_names(store: SampleStore) -> SampleNames:
    """Return the names of all samples of a store, in their order.

    In a folder a sample is its file. In a shard it is the "file_name" of its json, as `clim-data
    pack` writes it, or else its key; the json of every sample is read for that.
    """
    names: list[SampleName] = []
    for part, (source, index) in enumerate(zip(store.shards, store.indexes, strict=True)):
        keys = index.keys.tolist()
        if isinstance(index, FolderIndex):
            folder = Path(source).resolve().name or os.sep
            names += [SampleName(key, key, folder) for key in keys]
            continue

        has_json = index.spans[:, META, 0] >= 0
        for place, key in enumerate(keys):
            whole = _file_name(store, part, place) if has_json[place] else ""
            names.append(SampleName(whole, clean_name(key)))
    return SampleNames(names)


def _file_name(store: SampleStore, part: int, place: int) -> str:
    """The "file_name" of the json of a sample; "" where there is none that can be used."""
    try:
        record = json.loads(store.read_meta(part, place))
        name = record.get("file_name") or ""
    except (BrokenSample, ValueError, AttributeError, RecursionError):
        return ""  # whoever needs the json names its fault
    usable = isinstance(name, str) and name and not leads_out(name)
    return clean_name(name) if usable else ""

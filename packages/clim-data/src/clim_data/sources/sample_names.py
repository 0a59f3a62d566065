"""The names of the samples of a store, for everything that joins records with samples by name."""

import os
from pathlib import Path

from clim_data.faults import BrokenSample
from clim_data.files.identity import SampleName, SampleNames
from clim_data.files.names import clean_name
from clim_data.sources.file_names import META, name_in_json, usable_name
from clim_data.sources.folders import FolderIndex
from clim_data.sources.store import SampleStore


def names_of_samples(store: SampleStore) -> SampleNames:
    """Return the names of all samples of a store, in their order.

    In a folder a sample is its file. In a shard it is the "file_name" of its json, as `clim-data
    pack` writes it, or else its key. Indexes of packs have these names; for other shards the json
    of every sample is read.
    """
    names: list[SampleName] = []
    for part, (source, index) in enumerate(zip(store.shards, store.indexes, strict=True)):
        keys = index.keys.tolist()
        if isinstance(index, FolderIndex):
            folder = Path(source).resolve().name or os.sep
            names += [SampleName(key, key, folder) for key in keys]
            continue

        if index.names is not None:
            whole = [usable_name(name) for name in index.names]
        else:
            has_json = (index.spans[:, META, 0] >= 0).tolist()
            whole = [_read(store, part, i) if there else "" for i, there in enumerate(has_json)]
        names += [SampleName(name, clean_name(key)) for name, key in zip(whole, keys, strict=True)]
    return SampleNames(names)


def _read(store: SampleStore, part: int, place: int) -> str:
    """Read the "file_name" in the json of a sample."""
    try:
        return name_in_json(store.read_meta(part, place))
    except BrokenSample:
        return ""  # whoever needs the json names its fault

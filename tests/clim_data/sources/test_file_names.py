"""The names of samples: from the index of a pack, or from the jsons of a shard."""

import json

import fsspec
import numpy as np
import pytest
from clim_data.sources.file_names import name_in_json
from clim_data.sources.items import folder_items
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards

NAMES = ["a/1.png", "a/2.png", "b.png"]


@pytest.fixture
def pack(tmp_path, images):
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(images.encoded(images.pixels(1, 8, 8), "PNG"))
        (folder / name).with_suffix(".txt").write_text("a cat")
    write_shards(folder_items(folder), tmp_path / "out", samples_per_shard=2)
    return tmp_path / "out"


def names_of(store):
    return [sample.whole for sample in names_of_samples(store).samples]


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"file_name": "a/./1.png"}, "a/1.png"),
        ({"file_name": "../1.png"}, ""),
        ({"file_name": 7}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_the_name_in_a_json(meta, name):
    assert name_in_json(json.dumps(meta).encode()) == name
    assert name_in_json(b"{") == ""


def test_the_index_of_a_pack_has_the_names_that_its_jsons_have(pack, monkeypatch):
    store = SampleStore(pack)
    monkeypatch.setattr(store, "read_meta", lambda *place: pytest.fail("a json was read"))
    assert names_of(store) == NAMES
    store.keep(np.array([True, False, True]))
    assert names_of(store) == [NAMES[0], NAMES[2]]

    monkeypatch.undo()
    for index in pack.glob("*.index.json"):
        record = json.loads(index.read_text())
        del record["names"]  # of an earlier release
        index.write_text(json.dumps(record))
    assert names_of(SampleStore(pack)) == NAMES


def test_names_of_remote_shards_cost_no_second_download(pack, tmp_path, monkeypatch):
    disk = fsspec.filesystem("memory")
    for path in sorted(pack.glob("*.tar")):
        disk.pipe(f"/names/{path.name}", path.read_bytes())
    urls = "memory://names/shard-{000000..000001}.tar"
    for _ in ("downloaded", "from the cache of indexes"):
        store = SampleStore(urls, cache_folder=tmp_path / "cache")
        monkeypatch.setattr(store.cache, "fetch", lambda url: pytest.fail("a shard was fetched"))
        assert names_of(store) == NAMES

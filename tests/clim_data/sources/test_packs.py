"""A shard that its pack lists, and that is not there or is another one, is named."""

import json
import os

import pytest
from clim_data.faults import BrokenSample
from clim_data.sources.indexes import index_tar
from clim_data.sources.store import SampleStore


@pytest.fixture
def pack(tmp_path, tar):
    """A folder of two shards of three samples with the manifest that lists them."""
    folder = tmp_path / "pack"
    folder.mkdir()
    listed = {}
    for shard in range(2):
        members = [
            (f"{3 * shard + k}.{suffix}", b"x" * 700) for k in range(3) for suffix in ("jpg", "txt")
        ]
        path = tar(folder / f"p-{shard}.tar", members)
        listed[path.name] = [3, path.stat().st_size]
    (folder / "pack.json").write_text(json.dumps({"shards": listed}))
    return folder


def test_a_whole_pack_has_nothing_to_say(pack):
    store = SampleStore(pack)
    assert (len(store), store.skipped.total) == (6, 0)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("source", ["", "*.tar", "p-{0,*}.tar"])
def test_each_sample_of_a_missing_shard_is_counted(pack, index, source):
    missing = pack / "p-1.tar"
    if index:
        beside = pack / "p-1.tar.index.json"
        beside.write_text(json.dumps(index_tar(missing).to_json()))
    missing.unlink()
    store = SampleStore(f"{pack}/{source}" if source else pack)
    assert len(store) == 3
    assert store.skipped.counts == {"missing shard": 3}
    assert all(name.startswith("p-1.tar/") for name in store.skipped.names["missing shard"])
    with pytest.raises(BrokenSample, match=r"p-1\.tar.*same `clim-data pack` again"):
        SampleStore(pack, on_error="raise")


def test_a_shard_that_nobody_asked_for_is_not_missed(pack):
    (pack / "p-1.tar").unlink()
    assert not SampleStore(pack / "p-0.tar").skipped.total


def test_an_exchanged_shard_is_named_and_read(pack, tar):
    tar(pack / "p-1.tar", [("9.jpg", b"y"), ("9.txt", b"t")])
    store = SampleStore(pack)
    assert (len(store), store.skipped.names) == (4, {"changed shard": ["p-1.tar"]})


def test_a_pack_that_was_not_finished_is_named(pack):
    record = json.loads((pack / "pack.json").read_text())
    record["shards"]["p-2.tar"] = None
    (pack / "pack.json").write_text(json.dumps(record))
    store = SampleStore(pack)
    assert "was not finished" in store.skipped.entries["p-2.tar"][1]


@pytest.mark.parametrize(
    "shards", [{"../../x.tar": [1, 1]}, ["p-0.tar"], {"p-0.tar": "many"}, {"p-0.tar": [1]}, "[" * 9]
)
def test_a_manifest_of_something_else_is_not_believed(pack, shards):
    (pack / "pack.json").write_text(json.dumps({"shards": shards}))
    assert len(SampleStore(pack)) == 6


def test_a_pipe_is_no_shard(tmp_path, tar):
    tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.txt", b"a cat")])
    os.mkfifo(tmp_path / "b.tar")
    store = SampleStore(tmp_path)
    assert len(store) == 1
    assert store.skipped.names == {"unreadable shard": ["b.tar"]}

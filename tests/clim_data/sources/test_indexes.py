"""Indexes are used while they fit their shard, and made anew when they do not."""

import json
import os

import numpy as np
import pytest
from clim_data.sources.indexes import ShardIndex, index_tar, load_index
from clim_data.sources.store import SampleStore

MEMBERS = [(f"{k}.{s}", bytes([k + 65]) * 700) for k in range(6) for s in ("jpg", "txt")]


@pytest.fixture
def shard(tmp_path, tar):
    """A shard of six samples with its index next to it."""
    path = tar(tmp_path / "s.tar", MEMBERS)
    beside(path).write_text(json.dumps(index_tar(path).to_json()))
    return path


def beside(path):
    return path.with_name(path.name + ".index.json")


def never(monkeypatch):
    monkeypatch.setattr(
        "clim_data.sources.indexes.index_tar", lambda *_: pytest.fail("the index was not used")
    )


def test_an_index_that_fits_is_used(shard, monkeypatch):
    never(monkeypatch)
    assert load_index(shard, None).keys.tolist() == list("012345")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {**record, "tar_bytes": 5},
        lambda record: {**record, "version": 99},
        lambda record: {**record, "samples": [["a", 1]]},
        lambda record: {**record, "samples": [["z", 512, 1, -1, 0, 512, 1]]},
        lambda record: {**record, "samples": [["a", 512, 2**50, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": [["a", 2**70, 1, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": [["a", -1, 0, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": [["a", 512.5, 1, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": [["\udce9", 512, 1, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": [[7, 512, 1, -1, 0, -1, 0]]},
        lambda record: {**record, "samples": {"a": 1}},
        lambda record: {**record, "tar_bytes": "many"},
        lambda record: [],
        lambda record: "x",
    ],
)
def test_an_index_of_something_else_is_not_believed(shard, change):
    record = json.loads(beside(shard).read_text())
    beside(shard).write_text(json.dumps(change(record)))
    assert load_index(shard, None).keys.tolist() == list("012345")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b"\0" * 400, b"\xff\xfe", b'{"version": NaN}', b" " * (2 << 20)],
    ids=["empty", "cut", "deep", "zeros", "no text", "no number", "large"],
)
def test_a_damaged_or_hostile_index_costs_one_line(shard, content, caplog):
    beside(shard).write_bytes(content)
    assert load_index(shard, None).keys.tolist() == list("012345")
    (line,) = caplog.messages
    assert "s.tar.index.json is not used" in line
    assert len(line) < 300


def test_an_index_of_another_tar_of_the_same_size_is_not_used(shard, tar):
    longer = [(name, data + b"!" if name == "3.jpg" else data) for name, data in MEMBERS]
    size, index_time = shard.stat().st_size, beside(shard).stat().st_mtime_ns
    tar(shard, longer)
    assert shard.stat().st_size == size
    for seconds in (-5, 5):  # also an older one that was copied over a newer one
        os.utime(shard, ns=(index_time, index_time + seconds * 10**9))
        store = SampleStore(shard)
        assert store.read(3).image == b"D" * 700 + b"!"


def test_large_indexes_are_cached_and_heal(tmp_path, shard, monkeypatch):
    monkeypatch.setattr("clim_data.sources.indexes.CACHED_FROM_BYTES", 1000)
    beside(shard).unlink()
    cache = tmp_path / "cache"
    first = load_index(shard, cache)
    (stored,) = (cache / "index").iterdir()
    whole = stored.read_bytes()
    for damage in (whole[:200], bytes(len(whole)), whole.replace(b"512", b"513")):
        stored.write_bytes(damage)
        assert np.array_equal(load_index(shard, cache).spans, first.spans)
        assert stored.read_bytes() == whole

    never(monkeypatch)
    second = load_index(shard, cache)
    assert second.keys.tolist() == first.keys.tolist()
    assert np.array_equal(second.spans, first.spans)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, shard, monkeypatch):
    monkeypatch.setattr("clim_data.sources.indexes.CACHED_FROM_BYTES", 1000)
    beside(shard).unlink()
    (tmp_path / "cache").write_text("a file")
    assert len(load_index(shard, tmp_path / "cache")) == 6


@pytest.mark.parametrize("damage", ["cut", "zero tail", "no tar"])
def test_every_sample_that_a_damaged_shard_lost_is_counted(shard, damage):
    whole = shard.read_bytes()
    at = 2 * (2 * (512 + 1024)) + 100  # in the header of the third sample
    shard.write_bytes(
        {"cut": whole[:at], "zero tail": whole[:at] + bytes(len(whole) - at), "no tar": b"x" * at}[
            damage
        ]
    )
    store = SampleStore(shard)
    intact = 0 if damage == "no tar" else 2
    assert [store.read(i).image for i in range(len(store))] == [b"A" * 700, b"B" * 700][:intact]
    assert store.skipped.total == 6 - intact
    names = [name for names in store.skipped.names.values() for name in names]
    assert sorted(names) == [f"s.tar/{k}" for k in range(intact, 6)]


def test_an_index_round_trips(shard):
    index = index_tar(shard)
    copy = ShardIndex.from_json(json.loads(json.dumps(index.to_json())))
    assert np.array_equal(copy.spans, index.spans)
    assert (copy.keys.tolist(), copy.faults) == (index.keys.tolist(), index.faults)

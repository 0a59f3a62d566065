import pickle

import numpy as np
import pytest
from clim_data.faults import BrokenSample, SkipReport
from clim_data.sources.expand import expand_sources
from clim_data.sources.indexes import index_tar
from clim_data.sources.shards import ByteReader
from clim_data.sources.store import SampleStore
from clim_data.streams.epochs import epoch_order


def test_index_finds_every_file_of_a_sample(tmp_path, tar):
    members = [
        ("a/x.jpg", b"one"),
        ("a/x.json", b"{}"),
        ("y.PNG", b"three"),
        ("y.txt", b"t"),
        ("y.seg.png", b"skip"),
    ]
    path = tar(tmp_path / "s.tar", members)
    index = index_tar(path)
    assert index.keys.tolist() == ["a/x", "y"]
    assert not index.faults
    store = SampleStore(path)
    first, second = store.read(0), store.read(1)
    assert (first.name, first.image, first.text, first.meta) == ("s.tar/a/x", b"one", None, b"{}")
    assert (second.image, second.text, second.meta) == (b"three", b"t", None)
    assert store.fingerprint() == pickle.loads(pickle.dumps(store)).fingerprint()


def test_incomplete_samples_are_named(tmp_path, tar):
    members = [
        ("a.jpg", b"1"),
        ("b.json", b"{}"),
        ("c.jpg", b"2"),
        ("c.txt", b"t"),
        ("c.jpg", b"3"),
        ("c.txt", b"u"),
    ]
    store = SampleStore(tar(tmp_path / "s.tar", members))
    assert store.skipped.names == {"incomplete sample": ["s.tar/a", "s.tar/b"]}
    assert [store.read(i).image for i in range(len(store))] == [b"2", b"3"]
    with pytest.raises(BrokenSample, match=r"s\.tar/a: incomplete sample"):
        SampleStore(tmp_path / "s.tar", on_error="raise")


def test_a_shard_cut_anywhere_loses_only_what_is_cut(tmp_path, tar):
    members = [(f"{k}.{s}", bytes([k + 65]) * 700) for k in range(4) for s in ("jpg", "txt")]
    whole = tar(tmp_path / "whole.tar", members).read_bytes()
    path = tmp_path / "cut.tar"
    sample_bytes = 2 * (512 + 1024)
    for size in [0, 100, 512, 1000, *range(1200, 4 * sample_bytes + 600, 477)]:
        path.write_bytes(whole[:size])
        store = SampleStore(path)
        assert len(store) in (size // sample_bytes, (size + 324) // sample_bytes)
        for i in range(len(store)):
            assert store.read(i).image == bytes([i + 65]) * 700
        assert store.skipped.total >= 1
        with pytest.raises(BrokenSample):
            SampleStore(path, on_error="raise")


def test_what_is_no_tar_is_named(tmp_path, tar):
    (tmp_path / "junk.tar").write_bytes(b"<html>" * 1000)
    store = SampleStore(
        [tar(tmp_path / "good.tar", [("a.jpg", b"1"), ("a.txt", b"t")]), tmp_path / "junk.tar"]
    )
    assert len(store) == 1
    assert store.skipped.names == {"not a tar": ["junk.tar"]}


def test_shard_that_shrinks_after_indexing_is_named(tmp_path, tar):
    path = tar(tmp_path / "s.tar", [("a.jpg", b"1" * 5000), ("a.txt", b"t")])
    store = SampleStore(path)
    with open(path, "r+b") as stream:
        stream.truncate(2000)
    with pytest.raises(BrokenSample, match="cut shard"):
        store.read(0)


def test_sources_expand_in_a_fixed_order(tmp_path, tar):
    for name in ("b.tar", "a.tar", "sub/c.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tar(tmp_path / name, [("a.jpg", b"1"), ("a.txt", b"t")])
    a, b, c = (str(tmp_path / n) for n in ("a.tar", "b.tar", "sub/c.tar"))
    assert expand_sources(tmp_path) == [a, b, c]
    assert expand_sources(f"{tmp_path}/*.tar") == [a, b]
    assert expand_sources(f"{tmp_path}/{{b,a}}.tar") == [b, a]
    assert expand_sources([b, tmp_path]) == [b, a, c]
    urls = expand_sources("https://host/x-{00..02}.tar")
    assert urls == ["https://host/x-00.tar", "https://host/x-01.tar", "https://host/x-02.tar"]
    with pytest.raises(ValueError, match="sources is empty"):
        expand_sources([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.tar"):
        expand_sources(tmp_path / "empty")


def test_reader_keeps_few_files_open(tmp_path):
    paths = []
    for i in range(6):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(bytes(range(i, i + 10)))
    reader = ByteReader(keep_open=2)
    for _ in range(2):
        assert [reader.read(p, 3, 2) for p in paths] == [bytes([i + 3, i + 4]) for i in range(6)]
    assert len(reader._open) == 2
    with pytest.raises(OSError, match="ends before byte 12"):
        reader.read(paths[0], 9, 3)
    reader.close()


def test_epoch_order_is_a_permutation_that_visits_few_shards_at_a_time():
    counts = [5, 0, 7, 3, 9, 4]
    total = sum(counts)
    for window in (None, 1, 2, 10):
        order = epoch_order(counts, seed=1, epoch=2, window=window)
        assert sorted(order.tolist()) == list(range(total))
        assert np.array_equal(order, epoch_order(counts, seed=1, epoch=2, window=window))
        assert not np.array_equal(order, epoch_order(counts, seed=1, epoch=3, window=window))
        assert not np.array_equal(order, epoch_order(counts, seed=2, epoch=2, window=window))
    shard = np.repeat(np.arange(6), counts)[epoch_order(counts, seed=1, epoch=2, window=1)]
    assert np.count_nonzero(np.diff(shard)) == 4


def test_report_counts_each_sample_once_and_prints_names():
    report = SkipReport()
    assert report.summary() == "nothing skipped"
    report.extend(
        [
            BrokenSample("bad json", "s/1", "line 1"),
            BrokenSample("bad json", "s/2"),
            BrokenSample("cut", "s/3"),
        ]
    )
    report.add(BrokenSample("bad json", "s/1", "line 1"))
    assert report.total == 3
    assert report.counts == {"bad json": 2, "cut": 1}
    assert (
        report.summary(limit=1)
        == "skipped 2, bad json: s/1 (line 1); and 1 more\nskipped 1, cut: s/3"
    )
    copy = pickle.loads(pickle.dumps(BrokenSample("a", "b", "c")))
    assert (copy.reason, copy.name, copy.detail) == ("a", "b", "c")

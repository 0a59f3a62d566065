"""Shards that are cut, exchanged or removed after they were indexed, and shards that lie."""

import io
import json
import multiprocessing
import tarfile

import pytest
from clim_data import BoxLoader, CropLoader, MosaicConfig, MosaicLoader
from clim_data.faults import BrokenSample
from clim_data.sources.indexes import index_tar
from clim_data.sources.store import SampleStore

KINDS = ("mosaic", "grid", "boxes")


@pytest.fixture
def shards(make_shards, tmp_path):
    """(two shards of six samples, COCO json that fits them)."""
    paths = make_shards([6, 6])
    images = [{"id": i, "file_name": f"{i:06d}.jpg", "height": 40, "width": 56} for i in range(12)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 30, 20]} for i in range(12)]
    record = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(record))
    return paths, tmp_path / "boxes.json"


def loader_of(kind, shards, **options):
    paths, boxes = shards
    options = {"batch_size": 12, **options}
    if kind == "mosaic":
        return MosaicLoader(
            paths, mosaic=MosaicConfig(canvas_px=24, single_px=8, mix={2: 1}), **options
        )
    if kind == "grid":
        return CropLoader(paths, image_px=16, crop_px=8, **options)
    return BoxLoader(paths, image_px=16, boxes=boxes, **options)


def cut(path, share):
    with open(path, "r+b") as stream:
        stream.truncate(int(share * stream.seek(0, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_cut_during_an_epoch_loses_its_end(shards, kind, workers):
    loader = loader_of(kind, shards, batch_size=4, workers=workers, shuffle=False)
    stream = iter(loader)
    if workers == 0:
        assert next(stream).keys == [f"{i:06d}" for i in range(4)]
    cut(shards[0][1], 0.5)
    keys = [key for batch in stream for key in batch.keys]
    if workers == 0:
        keys = [f"{i:06d}" for i in range(4)] + keys
    lost = loader.skipped.names["cut shard"]
    assert set(loader.skipped.counts) == {"cut shard"}
    assert 2 <= len(lost) <= 4
    assert all(name.startswith("part-00001.tar/0000") for name in lost)
    assert keys + [name.rpartition("/")[2] for name in lost] == [f"{i:06d}" for i in range(12)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_cut_during_an_epoch_raises_with_its_name(shards, kind, workers):
    loader = loader_of(kind, shards, workers=workers, on_error="raise")
    cut(shards[0][1], 0.5)
    with pytest.raises(BrokenSample, match=r"part-00001\.tar/\d+: cut shard: .*ends before byte"):
        list(loader)


@pytest.mark.parametrize("how", ["error", "break"])
def test_workers_end_with_the_epoch_not_with_the_last_reference(shards, how):
    before = {process.pid for process in multiprocessing.active_children()}
    loader = loader_of("grid", shards, workers=1, batch_size=2, on_error="raise")
    held = []
    if how == "error":
        cut(shards[0][0], 0.1)
        with pytest.raises(BrokenSample) as caught:
            list(loader)
        held.append(caught)  # the error's traceback holds the frames of the epoch
    else:
        for _batch in loader:
            break
    assert {process.pid for process in multiprocessing.active_children()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_changes_during_an_epoch_is_not_misread(shards, kind, make_shards):
    loader, strict = loader_of(kind, shards), loader_of(kind, shards, on_error="raise")
    assert {key for batch in loader for key in batch.keys} == {f"{i:06d}" for i in range(12)}
    (larger,) = make_shards([9], folder="other", height=90)
    with open(larger, "rb") as other, open(shards[0][0], "r+b") as stream:
        stream.write(other.read())
    (batch,) = list(loader)
    assert sorted(batch.keys) == [f"{i:06d}" for i in range(6, 12)]
    assert loader.skipped.counts == {"changed shard": 6}
    assert set(loader.skipped.entries) == {f"part-00000.tar/{i:06d}" for i in range(6)}
    with pytest.raises(BrokenSample, match=r"part-00000\.tar/\d+: changed shard: .*start again"):
        list(strict)


def test_bytes_that_change_in_a_shard_of_the_same_size_are_named(shards):
    loader = loader_of("grid", shards)
    index = index_tar(shards[0][0])
    start, size = index.spans[2, 0].tolist()
    with open(shards[0][0], "r+b") as stream:
        stream.seek(start)
        stream.write(bytes(size))
    (batch,) = list(loader)
    assert len(batch) == 11
    assert loader.skipped.names == {"unreadable image": ["part-00000.tar/000002"]}


def test_a_shard_that_is_removed_during_an_epoch_is_named(shards, tmp_path):
    loader = loader_of("grid", shards)
    (tmp_path / "shards" / "part-00000.tar").unlink()
    (batch,) = list(loader)
    assert sorted(batch.keys) == [f"{i:06d}" for i in range(6, 12)]
    assert loader.skipped.counts == {"cut shard": 6}


@pytest.mark.parametrize(
    "name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:/x.jpg"]
)
def test_members_that_lead_out_of_the_shard_are_refused(tmp_path, tar, name):
    shard = tar(
        tmp_path / "s.tar",
        [("ok.jpg", b"1"), ("ok.txt", b"t"), (name, b"2"), ("y.jpg", b"3"), ("y.txt", b"t")],
    )
    store = SampleStore(shard)
    assert [store.read(i).key for i in range(len(store))] == ["ok", "y"]
    assert list(store.skipped.counts) == ["path outside the folder"]
    with pytest.raises(BrokenSample, match="leads out of the shard"):
        SampleStore(shard, on_error="raise")


def test_links_in_a_shard_are_not_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for kind, target in (
            (tarfile.SYMTYPE, "../secret.jpg"),
            (tarfile.LNKTYPE, str(tmp_path / "secret.jpg")),
        ):
            link = tarfile.TarInfo("a.jpg")
            link.type, link.linkname = kind, target
            tar.addfile(link)
        text = tarfile.TarInfo("a.txt")
        text.size = 1
        tar.addfile(text, io.BytesIO(b"t"))
    store = SampleStore(tmp_path / "s.tar")
    assert (len(store), store.skipped.names) == (0, {"incomplete sample": ["s.tar/a"]})


def test_absurdly_large_members_are_refused_by_their_header(tmp_path, tar, monkeypatch):
    monkeypatch.setattr("clim_data.sources.indexes.MAX_MEMBER_BYTES", 1000)
    shard = tar(
        tmp_path / "s.tar",
        [("a.jpg", b"1" * 1001), ("a.txt", b"t"), ("b.jpg", b"1" * 1000), ("b.txt", b"t")],
    )
    store = SampleStore(shard)
    assert [store.read(i).key for i in range(len(store))] == ["b"]
    assert store.skipped.names == {
        "file too large": ["s.tar/a.jpg"],
        "incomplete sample": ["s.tar/a"],
    }


def test_images_without_text_are_samples_for_crops_only(tmp_path, tar, images):
    data = images.encoded(images.pixels(1, 20, 20))
    shard = tar(tmp_path / "s.tar", [("a.jpg", data), ("b.jpg", data), ("b.txt", b"text")])
    assert CropLoader(shard, batch_size=1, image_px=8, crop_px=8).num_samples == 2
    loader = MosaicLoader(shard, batch_size=1)
    assert loader.num_samples == 1
    assert loader.skipped.entries == {"s.tar/a": ("incomplete sample", "no txt or json")}


def test_nested_json_is_named_not_followed(tmp_path, tar, images):
    data = images.encoded(images.pixels(1, 20, 20))
    members = [("a.jpg", data), ("a.json", b"[" * 100_000), ("b.jpg", data), ("b.txt", b"text")]
    loader = MosaicLoader(
        tar(tmp_path / "s.tar", members), batch_size=2, mosaic=MosaicConfig(canvas_px=8)
    )
    (batch,) = list(loader)
    assert (batch.keys, loader.skipped.counts) == (["b"], {"bad json": 1})

import os
from pathlib import Path

import pytest
import torch
from clim_data import CropLoader, MosaicConfig, MosaicLoader
from clim_data.faults import BrokenSample
from clim_data.sources.expand import expand_sources
from clim_data.sources.folders import FolderIndex
from clim_data.sources.store import SampleStore
from clim_data.sources.walk import image_files

SMALL = MosaicConfig(canvas_px=16, single_px=8, mix={})


@pytest.fixture
def photos(tmp_path, images):
    """A folder with three captioned images (one with two captions), one without, and files that are
    no images."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "b.PNG", "sub/c.webp", "sub/d.jpeg")):
        kind = {"PNG": "PNG", "webp": "WEBP"}.get(name.rpartition(".")[2], "JPEG")
        (folder / name).write_bytes(images.encoded(images.pixels(i, 20, 24), kind))
    (folder / "a.txt").write_text("a cat\n\n a dog \n")
    (folder / "b.txt").write_text("a sofa")
    (folder / "sub" / "c.txt").write_text("a bird")
    (folder / "notes.txt").write_text("nothing")
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "e.jpg").write_bytes(b"")
    return folder


def test_images_of_a_folder(photos):
    assert image_files(photos) == ["a.jpg", "b.PNG", "sub/c.webp", "sub/d.jpeg"]
    index = FolderIndex.of(photos)
    assert index.has_text.tolist() == [True, True, True, False]
    sample = index.read(2, "photos/c", 5)
    assert (sample.name, sample.key, sample.number) == ("photos/c", "sub/c.webp", 5)


def test_mosaics_from_a_folder_take_the_lines_beside_each_image(photos):
    loader = MosaicLoader(photos, batch_size=4, mosaic=SMALL)
    chosen = set()
    for _ in range(12):
        (batch,) = list(loader)
        captions = dict(zip(batch.keys, batch.captions, strict=True))
        assert (captions["b.PNG"], captions["sub/c.webp"]) == ("a sofa", "a bird")
        chosen.add(captions["a.jpg"])
    assert chosen == {"a cat", "a dog"}
    assert loader.skipped.names == {"incomplete sample": ["photos/sub/d.jpeg"]}
    with pytest.raises(
        BrokenSample, match=r"photos/sub/d\.jpeg: incomplete sample: no txt next to it"
    ):
        MosaicLoader(photos, batch_size=4, mosaic=SMALL, on_error="raise")


def test_captions_may_come_from_one_file(photos):
    before = MosaicLoader(photos, batch_size=4, mosaic=SMALL).fingerprint()
    lines = [
        '{"file_name": "a.jpg", "text": "one"}',
        '{"file_name": "sub/d.jpeg", "captions": ["two"]}',
    ]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    loader = MosaicLoader(photos, batch_size=4, mosaic=SMALL, shuffle=False)
    (batch,) = list(loader)
    assert (batch.keys, batch.captions) == (["a.jpg", "sub/d.jpeg"], ["one", "two"])
    assert loader.skipped.counts == {"incomplete sample": 2}
    (photos / "metadata.jsonl").write_text("\n".join(lines).replace("one", "1"))
    after = MosaicLoader(photos, batch_size=4, mosaic=SMALL).fingerprint()
    assert len({before, loader.fingerprint(), after}) == 3


def test_a_folder_gives_the_batches_of_its_shard(photos, tmp_path, tar):
    members = [
        (name.rpartition("/")[2], (photos / name).read_bytes()) for name in ("a.jpg", "sub/c.webp")
    ]
    shard = tar(tmp_path / "s.tar", members)
    (packed,) = list(
        CropLoader(shard, batch_size=2, image_px=16, crop_px=8, max_split=1, shuffle=False)
    )
    for name in ("b.PNG", "sub/d.jpeg"):
        (photos / name).unlink()
    (plain,) = list(
        CropLoader(photos, batch_size=2, image_px=16, crop_px=8, max_split=1, shuffle=False)
    )
    assert (packed.keys, plain.keys) == (["a", "c"], ["a.jpg", "sub/c.webp"])
    assert torch.equal(packed.images, plain.images)
    assert torch.equal(packed.crops, plain.crops)


def test_folders_and_shards_mix(photos, make_shards):
    sources = [photos, *make_shards([3])]
    loader = MosaicLoader(sources, batch_size=3, mosaic=SMALL)
    keys = [key for batch in loader for key in batch.keys]
    assert sorted(keys) == ["000000", "000001", "000002", "a.jpg", "b.PNG", "sub/c.webp"]


def test_a_folder_of_images_is_a_source(photos, tmp_path):
    assert expand_sources(photos) == expand_sources(f"{tmp_path}/ph*") == [str(photos)]


def test_links_are_followed_but_not_in_circles(photos, tmp_path, images):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.jpg").write_bytes(images.encoded(images.pixels(9, 20, 20)))
    os.symlink(tmp_path / "elsewhere", photos / "linked")
    os.symlink(tmp_path / "elsewhere" / "z.jpg", photos / "y.jpg")
    os.symlink(photos, photos / "sub" / "above")
    assert image_files(photos) == [
        "a.jpg",
        "b.PNG",
        "linked/z.jpg",
        "sub/c.webp",
        "sub/d.jpeg",
        "y.jpg",
    ]


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_files_that_go_or_break_after_the_start_are_named(photos, on_error):
    loader = CropLoader(photos, batch_size=4, image_px=16, crop_px=8, on_error=on_error)
    (photos / "a.jpg").unlink()
    (photos / "b.PNG").write_bytes((photos / "b.PNG").read_bytes()[:200])
    if on_error == "raise":
        with pytest.raises(
            BrokenSample, match=r"photos/(a\.jpg: missing image|b\.PNG: unreadable image)"
        ):
            list(loader)
        return
    (batch,) = list(loader)
    assert sorted(batch.keys) == ["sub/c.webp", "sub/d.jpeg"]
    assert loader.skipped.names == {
        "missing image": ["photos/a.jpg"],
        "unreadable image": ["photos/b.PNG"],
    }


def test_captions_that_may_not_be_read_are_named_as_captions(photos, monkeypatch):
    read = Path.read_bytes

    def closed(self):
        if self.suffix == ".txt":
            raise PermissionError(13, "Permission denied")
        return read(self)

    store = SampleStore(photos)
    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(BrokenSample, match="bad caption: Permission denied"):
        store.read(0)


def test_the_way_a_folder_is_written_changes_nothing(photos, monkeypatch):
    monkeypatch.chdir(photos)
    options = {"batch_size": 4, "image_px": 16, "crop_px": 8}
    streams = [list(CropLoader(source, **options)) for source in (photos, ".", f"{photos}/")]
    for (batch,) in streams:
        assert torch.equal(batch.crops, streams[0][0].crops)
    assert (
        len(
            {
                CropLoader(source, **options).fingerprint()
                for source in (photos, ".", "../photos/sub/..")
            }
        )
        == 1
    )


def test_a_folder_without_images_names_the_fix(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.tar and no image: check the path"):
        SampleStore(tmp_path / "empty")

"""The walk through a folder names what it cannot use, and nothing is hidden by a pattern or a tar."""

import os

import pytest
from clim_data.faults import BrokenSample
from clim_data.sources.expand import expand_sources
from clim_data.sources.items import folder_items
from clim_data.sources.store import SampleStore
from clim_data.sources.walk import walk_folder
from clim_data.sources.write import write_shards


@pytest.fixture
def folder(tmp_path, images):
    """One captioned image, `ok.png`."""
    place = tmp_path / "im"
    place.mkdir()
    (place / "ok.png").write_bytes(images.encoded(images.pixels(1, 8, 8), "PNG"))
    (place / "ok.txt").write_text("x")
    return place


def faults(folder):
    return {(fault.reason, fault.name) for fault in walk_folder(folder).faults}


def test_other_formats_are_counted_and_named(folder):
    for name in ("1.bmp", "2.tif", "3.gif", "4.jfif", "sub/5.HEIC", "notes.md", "._6.bmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    names = {"im/1.bmp", "im/2.tif", "im/3.gif", "im/4.jfif", "im/sub/5.HEIC"}
    assert faults(folder) == {("unsupported format", name) for name in names}
    assert set(SampleStore(folder).skipped.names["unsupported format"]) == names
    report = write_shards(folder_items(folder), folder.parent / "out")
    assert (report.samples, report.skipped.counts) == (1, {"unsupported format": 5})
    assert "convert it to jpg, png or webp" in report.skipped.summary()
    with pytest.raises(BrokenSample, match="unsupported format"):
        SampleStore(folder, on_error="raise")


def test_a_folder_of_other_formats_only_says_so(tmp_path):
    (tmp_path / "a.bmp").write_bytes(b"")
    for call in (expand_sources, folder_items):
        with pytest.raises(FileNotFoundError, match=r"unsupported format: .*a\.bmp"):
            call(tmp_path)


def test_closed_folders_are_named(folder, monkeypatch):
    (folder / "sub").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(
            "sub"
        ):  # root may enter every folder, so the system is asked to refuse
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (fault,) = walk_folder(folder).faults
    assert str(fault) == "im/sub: unreadable folder: Permission denied"
    assert SampleStore(folder).skipped.counts == {"unreadable folder": 1}
    (folder / "ok.png").unlink()
    (folder / "s.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"im/sub: unreadable folder.*make it readable"):
        expand_sources(folder)


def test_links_pipes_and_odd_names_are_named(folder):
    os.symlink("nowhere.png", folder / "a.png")
    os.symlink("/disk/that/is/not/there", folder / "more")
    os.mkfifo(folder / "b.png")
    os.rename(folder / "ok.png", os.fsencode(folder) + b"/caf\xe9.png")
    (folder / "c\\d.png").write_bytes(b"")
    (folder / "fine.jpg").write_bytes(b"")
    assert faults(folder) == {
        ("missing image", "im/a.png"),
        ("missing image", "im/more"),
        ("unreadable image", "im/b.png"),
        ("bad file name", "im/caf\\xe9.png"),
        ("bad file name", "im/c\\d.png"),
    }
    assert walk_folder(folder).images == ["fine.jpg"]
    SampleStore(folder, texts=False).skipped.summary().encode()


def test_a_name_that_is_not_utf8_does_not_stop_a_pack(folder):
    os.link(folder / "ok.png", os.fsencode(folder) + b"/caf\xe9.png")
    report = write_shards(folder_items(folder), folder.parent / "out")
    assert report.samples == 1
    assert "im/caf\\xe9.png (not UTF-8: rename it)" in report.skipped.summary()


def test_what_exists_is_a_path_before_it_is_a_pattern(tmp_path, tar):
    for name in ("run[1].tar", "run1.tar", "d{1,2}/s.tar", "x{1.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tar(tmp_path / name, [("x.png", b"1")])
    assert expand_sources(tmp_path / "run[1].tar") == [str(tmp_path / "run[1].tar")]
    assert expand_sources(tmp_path / "d{1,2}") == [str(tmp_path / "d{1,2}/s.tar")]
    assert expand_sources(tmp_path / "x{1.tar") == [str(tmp_path / "x{1.tar")]
    assert expand_sources(f"{tmp_path}/run[12].tar") == [str(tmp_path / "run1.tar")]


def test_a_tar_among_images_is_refused(folder, tar):
    (folder / "old").mkdir()
    tar(folder / "old" / "backup.tar", [("z.png", b"1")])
    message = r"im holds 1 image and .*im/old/backup\.tar: name '.*im/old', or take the tar out"
    with pytest.raises(ValueError, match=message):
        expand_sources(folder)
    (folder / "ok.png").unlink()
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "z.png").write_bytes(b"")
    assert expand_sources(folder) == [str(folder / "old" / "backup.tar")]

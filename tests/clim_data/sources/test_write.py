import json
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import webdataset
from clim_data import MosaicConfig, MosaicLoader
from clim_data.commands.main import main
from clim_data.sources.items import caption_items, folder_items, instance_items, panoptic_items
from clim_data.sources.packs import MANIFEST
from clim_data.sources.sample_names import names_of_samples
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards
from PIL import Image

SMALL = MosaicConfig(canvas_px=16, single_px=8)


@pytest.fixture
def coco(tmp_path, images):
    """Seven images with captions, the last in another format; returns (folder, annotation file)."""
    folder = tmp_path / "train2017"
    folder.mkdir()
    for i in range(7):
        kind, suffix = ("PNG", "png") if i == 6 else ("JPEG", "jpg")
        (folder / f"{i:012d}.{suffix}").write_bytes(images.encoded(images.pixels(i, 24, 32), kind))
    names = [f"{i:012d}.{'png' if i == 6 else 'jpg'}" for i in range(7)]
    record = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)][::-1],
        "annotations": [{"id": k, "image_id": k % 7, "caption": f"text {k}"} for k in range(14)],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(record))
    return folder, path


def contents(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


def test_shards_hold_the_original_bytes_and_are_plain_webdataset(coco, tmp_path):
    folder, annotations = coco
    report = write_shards(caption_items(folder, annotations), tmp_path / "out", samples_per_shard=3)
    assert (report.shards, report.written, report.samples) == (3, 3, 7)
    shards = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"{i:012d}" for i in range(7)]
    for i, sample in enumerate(samples):
        suffix = "png" if i == 6 else "jpg"
        assert sample[suffix] == (folder / f"{i:012d}.{suffix}").read_bytes()
        meta = json.loads(sample["json"])
        assert meta["captions"] == [f"text {i}", f"text {i + 7}"]
        assert (meta["width"], meta["height"], meta["image_id"]) == (32, 24, i)


def test_packed_shards_train_with_their_index(coco, tmp_path, monkeypatch):
    folder, annotations = coco
    write_shards(caption_items(folder, annotations), tmp_path / "out", samples_per_shard=3)
    monkeypatch.setattr(
        "clim_data.sources.indexes.index_tar",
        lambda *_: pytest.fail("the index beside the shard was not used"),
    )
    loader = MosaicLoader(tmp_path / "out", batch_size=7, mosaic=SMALL)
    (batch,) = list(loader)
    assert sorted(batch.keys) == [f"{i:012d}" for i in range(7)]


def test_packing_again_changes_nothing_and_workers_do_not_matter(coco, tmp_path):
    folder, annotations = coco
    out = tmp_path / "out"
    write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    before = contents(out)
    report = write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    assert report.written == 0
    assert report.samples == 7
    assert contents(out) == before
    write_shards(
        caption_items(folder, annotations), tmp_path / "two", samples_per_shard=3, workers=2
    )
    assert {k: v[0] for k, v in contents(tmp_path / "two").items()} == {
        k: v[0] for k, v in before.items()
    }


@pytest.mark.parametrize("stage", ["before the rename", "before the index"])
def test_a_killed_pack_leaves_no_shard_that_looks_whole_and_is_finished_later(
    coco, tmp_path, monkeypatch, stage
):
    folder, annotations = coco
    out = tmp_path / "out"
    whole = tmp_path / "whole"
    write_shards(caption_items(folder, annotations), whole, samples_per_shard=3)
    reference = {k: v[0] for k, v in contents(whole).items()}
    pid = os.fork()
    if pid == 0:  # dies like a killed process: no cleanup runs
        original = os.replace
        written = []

        def replace(source, target):
            if str(target).endswith("1.tar"):
                if stage == "before the index":
                    original(source, target)
                os._exit(9)
            written.append(original(source, target))

        os.replace = replace
        write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left = {p.name for p in out.glob("*.tar")}
    assert left == {"shard-000000.tar"} | (
        {"shard-000001.tar"} if stage == "before the index" else set()
    )
    assert all((out / name).read_bytes() == reference[name] for name in left)
    report = write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    assert report.written == 2
    assert {k: v[0] for k, v in contents(out).items()} == reference


def test_bad_samples_are_left_out_and_named(coco, tmp_path):
    folder, annotations = coco
    (folder / "000000000001.jpg").write_bytes(b"no image")
    (folder / "000000000002.jpg").unlink()
    cut = (folder / "000000000003.jpg").read_bytes()[:-200]
    (folder / "000000000003.jpg").write_bytes(cut)
    record = json.loads(annotations.read_text())
    record["images"].append({"id": 50, "file_name": "../../secret.jpg"})
    record["images"].append({"id": 51, "file_name": "/etc/secret.jpg"})
    record["annotations"] += [{"id": 90 + i, "image_id": 50 + i, "caption": "x"} for i in range(2)]
    record["annotations"] = [a for a in record["annotations"] if a["image_id"] != 4]
    annotations.write_text(json.dumps(record))
    report = write_shards(caption_items(folder, annotations), tmp_path / "out", check_images=True)
    assert report.samples == 3
    assert report.skipped.counts == {
        "unreadable image": 2,
        "missing image": 1,
        "empty caption": 1,
        "path outside the folder": 2,
    }
    assert any("secret" in name for name in report.skipped.names["path outside the folder"])
    again = write_shards(caption_items(folder, annotations), tmp_path / "out", check_images=True)
    assert again.written == 0
    assert again.skipped == report.skipped
    with pytest.raises(ValueError, match=r"unreadable image|missing image|empty caption"):
        write_shards(
            caption_items(folder, annotations),
            tmp_path / "strict",
            on_error="raise",
            check_images=True,
        )
    assert not list((tmp_path / "strict").glob("*.tar"))


@pytest.mark.parametrize("before", [None, b"<html>403</html>"], ids=["absent", "broken"])
def test_an_image_that_arrives_or_is_repaired_is_packed(coco, tmp_path, before):
    folder, annotations = coco
    image = folder / "000000000002.jpg"
    data = image.read_bytes()
    image.unlink()
    if before is not None:
        image.write_bytes(before)
    out = tmp_path / "out"
    assert write_shards(caption_items(folder, annotations), out, samples_per_shard=3).samples == 6
    image.write_bytes(data)
    report = write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    assert (report.written, report.samples, report.skipped.total) == (1, 7, 0)


def test_an_image_that_was_exchanged_is_packed(coco, tmp_path):
    folder, annotations = coco
    out = tmp_path / "out"
    write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    other = (folder / "000000000001.jpg").read_bytes()
    (folder / "000000000002.jpg").write_bytes(other)
    report = write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    assert report.written == 1
    assert SampleStore(out).read(2).image == other


def test_a_bare_name_packs_the_one_file_below_that_has_it(coco, tmp_path):
    """As training and evaluation read it; a name that two files have stays missing."""
    folder, annotations = coco
    (folder / "0").mkdir()
    first, second = folder / f"{0:012d}.jpg", folder / f"{1:012d}.jpg"
    moved = first.rename(folder / "0" / first.name)
    (folder / "1").mkdir()
    for place in ("0", "1"):
        (folder / place / second.name).write_bytes(second.read_bytes())
    second.unlink()

    out = tmp_path / "out"
    report = write_shards(caption_items(folder, annotations), out)
    assert report.samples == 6
    assert [Path(name).name for name in report.skipped.names["missing image"]] == [second.name]
    (shard,) = out.glob("*.tar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    samples = {one["__key__"]: one for one in found}
    packed = samples[first.stem]
    assert packed["jpg"] == moved.read_bytes()
    assert json.loads(packed["json"])["file_name"] == first.name

    # When the file comes to the place of its name, it is still the same sample.
    moved.rename(first)
    assert write_shards(caption_items(folder, annotations), out).samples == 6


def test_images_that_have_gone_stay_in_their_shard(coco, tmp_path):
    folder, annotations = coco
    out = tmp_path / "out"
    write_shards(caption_items(folder, annotations), out)
    (folder / "000000000002.jpg").unlink()
    report = write_shards(caption_items(folder, annotations), out)
    assert (report.written, report.samples) == (0, 7)
    (folder / "000000000003.jpg").write_bytes((folder / "000000000001.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"1 have gone.*--overwrite"):
        write_shards(caption_items(folder, annotations), out)
    report = write_shards(caption_items(folder, annotations), out, overwrite=True)
    assert (report.written, report.samples) == (1, 6)


@pytest.mark.parametrize("damage", ["gone", "cut", "zero tail", "one bit"])
def test_a_shard_that_was_lost_or_damaged_is_written_again(coco, tmp_path, damage):
    folder, annotations = coco
    out = tmp_path / "out"
    write_shards(caption_items(folder, annotations), out, samples_per_shard=3)
    shard = out / "shard-000001.tar"
    whole = shard.read_bytes()
    half = len(whole) // 2
    shard.write_bytes(
        {
            "gone": b"",
            "cut": whole[:half],
            "zero tail": whole[:half] + bytes(len(whole) - half),
            "one bit": bytes([whole[0] ^ 1]) + whole[1:],
        }[damage]
    )
    if damage == "gone":
        shard.unlink()
    store = SampleStore(out)
    assert len(store) < 7
    assert store.skipped.total >= 7 - len(store)
    assert write_shards(caption_items(folder, annotations), out, samples_per_shard=3).written == 1
    assert shard.read_bytes() == whole
    assert not SampleStore(out).skipped.total


def test_workers_end_with_a_killed_pack_and_the_folder_is_free(tmp_path, images):
    folder = tmp_path / "many"
    folder.mkdir()
    data = images.encoded(images.pixels(1, 200, 200))
    for i in range(400):
        (folder / f"{i}.jpg").write_bytes(data)
        (folder / f"{i}.txt").write_text("text")
    out = tmp_path / "out"
    command = ["pack", "folder", "--images", str(folder), "--output", str(out), "--workers", "2"]
    command += ["--samples-per-shard", "10", "--check-images"]
    pack = subprocess.Popen(
        [sys.executable, "-m", "clim_data", *command], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.005)
    children = Path(f"/proc/{pack.pid}/task/{pack.pid}/children").read_text().split()
    pack.kill()
    pack.wait()
    report = write_shards(
        folder_items(folder), out, name="folder", samples_per_shard=10, check_images=True
    )
    assert report.samples == 400
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(out.glob(".*.part"))


def test_a_killed_worker_is_an_error_and_leaves_no_draft(coco, tmp_path, monkeypatch):
    folder, annotations = coco

    def die(item, *, check):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("clim_data.sources.write._members", die)
    with pytest.raises(BrokenProcessPool):
        write_shards(
            caption_items(folder, annotations), tmp_path / "out", samples_per_shard=3, workers=2
        )
    assert not list((tmp_path / "out").glob(".*"))


def test_another_pack_in_the_folder_is_refused_or_replaced(coco, tmp_path):
    folder, annotations = coco
    out = tmp_path / "out"
    write_shards(caption_items(folder, annotations), out, samples_per_shard=2)
    with pytest.raises(ValueError, match="--overwrite"):
        write_shards(caption_items(folder, annotations), out, samples_per_shard=4)
    write_shards(caption_items(folder, annotations), out, samples_per_shard=4, overwrite=True)
    assert len(list(out.glob("*.tar"))) == len(list(out.glob("*.index.json"))) == 2
    assert len(next(iter(MosaicLoader(out, batch_size=7, mosaic=SMALL)))) == 7


def test_lvis_and_instances_with_captions(coco, tmp_path):
    folder, annotations = coco
    record = {
        "images": [
            {"id": i, "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg"}
            for i in range(3)
        ],
        "annotations": [
            {
                "id": 5,
                "image_id": 1,
                "category_id": 2,
                "bbox": [1, 2, 3, 4],
                "segmentation": [[0, 0, 1, 1, 2, 2]],
            }
        ],
        "categories": [{"id": 2, "name": "two"}],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(record))
    for place in (folder, tmp_path):
        listing = instance_items(
            place, tmp_path / "lvis.json", captions_json=[annotations], kind="lvis"
        )
        report = write_shards(listing, tmp_path / f"out-{place.name}")
        assert report.samples == 3
        out = report.folder
        assert json.loads((out / MANIFEST).read_text())["categories"] == record["categories"]
        assert len(list(MosaicLoader(out, batch_size=3, mosaic=SMALL))) == 1
    plain = instance_items(folder, tmp_path / "lvis.json")
    assert plain.items[1].meta["instances"][0]["bbox"] == [1, 2, 3, 4]
    assert "captions" not in plain.items[1].meta


def test_odd_samples_are_packed_and_named_again_by_the_next_pack(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", (32, 24)).save(tmp_path / "1.jpg", exif=exif)
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 90, 9]}]
    record = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 24, "width": 32}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "i.json"
    path.write_text(json.dumps(record))
    for written in (1, 0):
        report = write_shards(instance_items(tmp_path, path), tmp_path / "out")
        assert (report.written, report.skipped.total) == (written, 0)
        names = [(warning.reason, warning.name) for warning in report.skipped.warnings]
        assert names == [
            ("box clipped to its image", "i.json, annotation 1 (id 1)"),
            ("EXIF orientation", str(tmp_path / "1.jpg")),
        ]


def test_panoptic_shards_keep_the_segment_png(golden, tmp_path):
    data = golden("case07_panoptic").folder / "case07_data"
    listing = panoptic_items(data / "images", data / "panoptic.json", data / "panoptic")
    report = write_shards(listing, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(
            webdataset.WebDataset(str(tmp_path / "out" / "shard-000000.tar"), shardshuffle=False)
        )
    record = json.loads((data / "panoptic.json").read_text())
    assert report.samples == len(samples) == len(record["annotations"])
    for sample, annotation in zip(samples, record["annotations"]):
        assert sample["panoptic.png"] == (data / "panoptic" / annotation["file_name"]).read_bytes()
        assert json.loads(sample["json"])["segments_info"] == annotation["segments_info"]


def test_folder_with_texts_or_a_table(tmp_path, images):
    folder = tmp_path / "mine"
    (folder / "sub.dir").mkdir(parents=True)
    for name in ("a.jpg", "sub.dir/a.jpg", "b.c.PNG"):
        kind = "PNG" if name.endswith("PNG") else "JPEG"
        (folder / name).write_bytes(images.encoded(images.pixels(1, 8, 8), kind))
    (folder / "a.txt").write_text("one\n\ntwo\n")
    (folder / "b.c.txt").write_text("three")
    listing = folder_items(folder)
    assert [item.meta["captions"] for item in listing.items] == [["one", "two"], ["three"], []]
    report = write_shards(listing, tmp_path / "out")
    assert report.samples == 2
    assert report.skipped.counts == {"empty caption": 1}
    (folder / "metadata.jsonl").write_text('{"file_name": "sub.dir/a.jpg", "text": "four"}\n')
    keys = [item.key for item in folder_items(folder).items if item.fault is None]
    assert keys == ["sub%2Edir%2Fa"]
    table = tmp_path / "captions.json"
    table.write_text(json.dumps({"a.jpg": "five", "b.c.PNG": ["six", "seven"]}))
    listing = folder_items(folder, captions_file=table)
    assert [item.meta["captions"] for item in listing.items] == [["five"], ["six", "seven"], []]
    table.write_text("[1]")
    with pytest.raises(ValueError, match="cannot be used"):
        folder_items(folder, captions_file=table)


def test_mpo_and_other_formats(tmp_path, images):
    (tmp_path / "x.png").write_bytes(images.encoded(np.zeros((4, 4, 3), np.uint8), "BMP"))
    (tmp_path / "x.txt").write_text("t")
    with pytest.raises(ValueError, match="unsupported format: BMP"):
        write_shards(folder_items(tmp_path), tmp_path / "out", on_error="raise")


def test_command_line_packs_and_reports(coco, tmp_path, capsys):
    folder, annotations = coco
    command = [
        "pack",
        "coco-captions",
        "--images",
        str(folder),
        "--captions-json",
        str(annotations),
    ]
    command += ["--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    assert "7 samples in 1 shards" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 written now, 1 were there" in capsys.readouterr().out
    assert (tmp_path / "out" / "coco-captions-000000.tar").is_file()
    assert main([*command, "--samples-per-shard", "0"]) == 2
    assert "samples_per_shard=0" in capsys.readouterr().err
    assert main([*command[:5], str(tmp_path / "no.json"), *command[6:]]) == 2
    assert "no annotation file" in capsys.readouterr().err


def test_photographs_from_pack_to_batch(coco_cc, tmp_path):
    listing = caption_items(
        coco_cc / "train2017", coco_cc / "annotations" / "captions_train2017.json"
    )
    report = write_shards(listing, tmp_path / "out", samples_per_shard=5, check_images=True)
    assert report.samples >= 13
    loader = MosaicLoader(
        tmp_path / "out", batch_size=13, mosaic=MosaicConfig(canvas_px=96, single_px=32)
    )
    batch = next(iter(loader))
    assert batch.mosaics.shape == (2, 3, 96, 96)
    assert not loader.skipped.total


def test_keys_of_names_that_look_alike(tmp_path, images):
    """Each image has a key of its own, and its json says which file it is."""
    names = [
        "a.jpg",
        "a.png",
        "a.jpg.png",
        "a b.jpg",
        "a_b.jpg",
        "cats/1.png",
        "cats_1.png",
        "x.jpg",
    ]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kind = "PNG" if name.endswith("png") else "JPEG"
        data = images.encoded(np.full((4, 4, 3), number, np.uint8), kind)
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).with_suffix(".txt").write_text("t")
    listing = folder_items(tmp_path)
    keys = {item.name: item.key for item in listing.items}
    assert len(set(keys.values())) == len(names)
    assert keys["x.jpg"] == "x"
    assert keys["a.png"] == "a%2Epng"
    assert not any("." in key or "/" in key for key in keys.values())

    report = write_shards(listing, tmp_path / "out")
    assert report.samples == len(names)
    store = SampleStore(tmp_path / "out")
    assert [sample.whole for sample in names_of_samples(store).samples] == sorted(names)


KINDS = {
    "folder": [],
    "coco-captions": ["--captions-json", "c.json"],
    "coco-instances": ["--instances-json", "c.json"],
    "refcoco": ["--refs", "r", "--instances-json", "c.json", "--split", "val"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["shards", "shards/a-000000.tar", "https://host/a.tar"])
def test_shards_are_no_image_files(kind, source, coco, tmp_path, capsys, monkeypatch):
    write_shards(caption_items(*coco), tmp_path / "shards", name="a", samples_per_shard=100)
    monkeypatch.chdir(tmp_path)
    words = ["pack", kind, "--images", source, *KINDS[kind], "--out", "again"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{source} is shards, and this needs image files" in told
    assert "unpack them" in told
    assert not (tmp_path / "again").exists()


def test_a_tar_among_images_is_refused_but_for_the_shards_of_the_pack(tmp_path, images, capsys):
    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(images.encoded(images.pixels(0, 24, 32)))
        (folder / f"{name}.txt").write_text(f"photo {name}")
    command = ["pack", "folder", "--images", str(folder), "--out", str(folder / "shards")]
    command += ["--workers", "1"]
    assert main(command) == 0
    assert main(command) == 0
    assert "2 samples in 1 shards" in capsys.readouterr().out
    (folder / "old" / "backup.tar").write_bytes(bytes(1024))
    assert main(command) == 2
    assert "holds 2 images and" in capsys.readouterr().err


def test_an_image_that_may_not_be_read_is_not_called_missing(coco, tmp_path, monkeypatch):
    read = Path.read_bytes

    def closed(self):
        if self.name == first.name:
            raise PermissionError(13, "Permission denied")
        return read(self)

    folder = tmp_path / "closed"
    found = caption_items(*coco)
    first = Path(next(item for item in found.items if item.fault is None).name)
    monkeypatch.setattr(Path, "read_bytes", closed)
    report = write_shards(found, folder)
    (name,) = report.skipped.names["unreadable image"]
    assert name.endswith(first.name)


def test_packing_does_without_torch():
    """Which takes seconds to import, for nothing here."""
    modules = "clim_data.sources.write, clim_data.sources.items"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

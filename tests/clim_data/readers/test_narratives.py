"""Panoptic narratives: the original's phrases, masks and flags; bad narratives counted; packing and
reading back."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from clim_data.commands.main import main
from clim_data.faults import BrokenSample
from clim_data.readers.narratives import PanopticNarratives, narrative_items
from clim_data.sources.write import write_shards


@pytest.fixture(scope="module")
def golden_source(golden):
    return golden("demo/text_logic", "flmm").folder / "data"


@pytest.fixture(scope="module")
def source():
    """The set in this repository, whatever CLIM_GOLDEN says: some tests know its content."""
    return Path(__file__).parents[2] / "golden" / "flmm" / "data"


def places(folder):
    return folder / "images", folder / "png.json", folder / "panoptic.json", folder / "panoptic"


@pytest.fixture
def copy(source, tmp_path):
    """A copy of the fixture whose narratives may be changed."""
    return shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)


def expected_samples(golden):
    """(golden case, sample name, place in the file) of every narrative that the original read."""
    case = golden("datasets/png_llava", "flmm")
    for name, record in case.meta["samples"].items():
        yield case, name, record["png_index"] if "png_index" in record else int(name[1:])


def test_golden_narratives_have_the_originals_phrases_masks_and_flags(golden, golden_source):
    data = PanopticNarratives(*places(golden_source))
    by_place = {int(data[i].key.rpartition("-")[2]): data[i] for i in range(len(data))}
    narratives = json.loads((golden_source / "png.json").read_text())
    count = 0
    for case, name, place in expected_samples(golden):
        sample, infos = by_place[place], case.meta["samples"][name]["mask_infos"]
        image, masks = sample.load()
        assert image.mode == "RGB"
        assert np.array_equal(masks, case.arrays[f"{name}__gt_masks"].astype(bool))
        assert [(p.is_plural, p.is_thing) for p in sample.phrases] == [
            (i["plural"], i["isthing"]) for i in infos
        ]
        segments = narratives[place]["segments"]
        assert [text for text, _ in sample.segments] == [
            segment["utterance"] for segment in segments
        ]
        assert [p.text for p in sample.phrases] == [
            s["utterance"] for s in segments if s["segment_ids"]
        ]
        assert (sample.kind, sample.image_id) == ("narrative", int(narratives[place]["image_id"]))
        count += 1
    assert count
    grounded = [i for i, n in enumerate(narratives) if any(s["segment_ids"] for s in n["segments"])]
    assert list(by_place) == grounded
    assert data.skipped.counts == {"no phrase": len(narratives) - len(grounded)}


def test_narratives_come_back_from_shards(source, tmp_path, capsys):
    images, narratives, panoptic, pngs = map(str, places(source))
    command = [
        "pack",
        "png",
        "--images",
        images,
        "--narratives-json",
        narratives,
        "--panoptic-json",
        panoptic,
    ]
    command += [
        "--panoptic-dir",
        pngs,
        "--out",
        str(tmp_path / "out"),
        "--samples-per-shard",
        "2",
        "--workers",
        "1",
    ]
    assert main(command) == 0
    assert "no phrase" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 written now" in capsys.readouterr().out
    files, shards = (
        PanopticNarratives(*places(source)),
        PanopticNarratives.from_shards(tmp_path / "out"),
    )
    assert len(files) == len(shards)
    for i in range(len(files)):
        a, b = files[i], shards[i]
        assert (a.key, a.image_id, a.segments, a.phrases) == (
            b.key,
            b.image_id,
            b.segments,
            b.phrases,
        )
        assert isinstance(b.image, bytes)
        (image_a, masks_a), (image_b, masks_b) = a.load(), b.load()
        assert np.array_equal(masks_a, masks_b)
        assert np.array_equal(np.asarray(image_a), np.asarray(image_b))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: n.update(image_id="77"), "unknown image"),
        (lambda n: n.update(image_id="x"), "malformed narrative"),
        (lambda n: n.pop("segments"), "malformed narrative"),
        (lambda n: n["segments"][1].update(segment_ids=["5"]), "unknown segment"),
        (lambda n: n["segments"][1].update(segment_ids=["five"]), "malformed narrative"),
        (lambda n: [s.update(segment_ids=[]) for s in n["segments"]], "no phrase"),
    ],
)
def test_bad_narratives_are_left_out_and_named(copy, change, reason):
    narratives = json.loads((copy / "png.json").read_text())
    usable = len(PanopticNarratives(*places(copy)))
    change(narratives[0])
    (copy / "png.json").write_text(json.dumps(narratives))
    data = PanopticNarratives(*places(copy))
    assert len(data) == usable - 1
    assert data.skipped.counts[reason] >= 1
    assert any(name.endswith("-0") for name in data.skipped.names[reason])


def test_broken_pictures_are_told_when_they_are_read(copy):
    data = PanopticNarratives(*places(copy))
    images = sorted((copy / "images").iterdir())
    pngs = sorted((copy / "panoptic").iterdir())
    pngs[1].write_bytes(pngs[2].read_bytes())
    with pytest.raises(BrokenSample, match="size mismatch"):
        data[1].load()
    pngs[0].write_bytes(b"no png")
    with pytest.raises(BrokenSample, match="unreadable image"):
        data[0].load()
    images[0].unlink()
    with pytest.raises(BrokenSample, match="missing image"):
        data[0]
    report = write_shards(narrative_items(*places(copy)), copy / "shards")
    assert report.skipped.counts["missing image"] == 1


def test_wrong_files_are_told(source, tmp_path):
    images, narratives, panoptic, pngs = places(source)
    with pytest.raises(FileNotFoundError, match="doctor"):
        PanopticNarratives(images, tmp_path / "no.json", panoptic, pngs)
    with pytest.raises(FileNotFoundError, match="no segmentation folder"):
        PanopticNarratives(images, narratives, panoptic, tmp_path / "no")
    with pytest.raises(ValueError, match="not a list of narratives"):
        PanopticNarratives(images, panoptic, panoptic, pngs)
    with pytest.raises(ValueError, match="panoptic"):
        PanopticNarratives(images, narratives, source / "refcoco" / "instances.json", pngs)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(ValueError, match="no usable narrative"):
        PanopticNarratives(images, tmp_path / "none.json", panoptic, pngs)


def damaged(path, content, replacement):
    """Overwrite the first occurrence of some bytes of a file with as many others."""
    data = path.read_bytes()
    assert content in data
    path.write_bytes(data.replace(content, replacement.ljust(len(content)), 1))


@pytest.mark.parametrize(
    ("content", "replacement", "reason"),
    [
        (b'"phrases"', b'"phrasen"', "not a narrative"),
        (b'"segments"', b'"segmente"', "malformed narrative"),
        (b'{"file_name"', b'{"file_name', "bad json"),
        (b".panoptic.png", b".other", "not a narrative|cut shard"),
    ],
)
def test_damaged_shards_are_told_sample_by_sample(source, tmp_path, content, replacement, reason):
    write_shards(narrative_items(*places(source)), tmp_path)
    damaged(tmp_path / "shard-000000.tar", content, replacement)
    data = PanopticNarratives.from_shards(tmp_path)
    with pytest.raises(BrokenSample, match=reason):
        data[0]
    assert data[1].load()[1].any()


def test_a_member_of_negative_size_is_refused(source, tmp_path):
    write_shards(narrative_items(*places(source)), tmp_path)
    shard = tmp_path / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    start = data.index(b".panoptic.png") // 512 * 512
    header = tarfile.TarInfo.frombuf(bytes(data[start : start + 512]), "utf-8", "strict")
    data[start + 124 : start + 136] = b"\xff" * 11 + b"\x00"  # base-256: -256
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    shard.write_bytes(data)
    assert header.size > 0
    with pytest.raises(BrokenSample, match="negative size"):
        PanopticNarratives.from_shards(tmp_path)[0]

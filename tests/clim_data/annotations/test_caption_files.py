"""Captions are texts or lists of texts; anything else is named with its place."""

import json

import pytest
from clim_data.annotations.caption_files import captions_of, captions_of_images, read_caption_table
from clim_data.derive.nouns import read_caption_texts
from clim_data.faults import BrokenSample, SkipReport
from clim_data.matching.captions import CaptionTable
from clim_data.readers.image_captions import ImageCaptions
from clim_data.sources.items import caption_items, folder_items
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards


@pytest.fixture
def folder(tmp_path, images):
    """Two images without captions, `1.png` and `2.png`."""
    place = tmp_path / "im"
    place.mkdir()
    for i in (1, 2):
        (place / f"{i}.png").write_bytes(images.encoded(images.pixels(i, 8, 8), "PNG"))
    return place


def packed(folder, **options):
    """Captions by name, and the faults, of a pack of the folder."""
    listing = folder_items(folder, **options)
    faults = SkipReport(BrokenSample(*item.fault) for item in listing.items if item.fault)
    captions = {item.name: item.meta["captions"] for item in listing.items if not item.fault}
    return captions, faults


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"text": "dog"}, "an object"),
        (5, "a number"),
        (float("nan"), "a number"),
        (True, "true or false"),
        (["a", {"raw": "b"}], "a list with an object"),
        ([["a"]], "a list with a list"),
        ("\ud83d", "half a character"),
    ],
)
def test_a_caption_that_is_no_text_is_named(value, kind):
    with pytest.raises(BrokenSample, match=f'x.json, row 3: bad caption: "text" .*{kind}'):
        captions_of(value, "x.json, row 3", "text")
    assert captions_of([" a ", None, "", "\ufeffb"], "x") == ["a", "b"]
    assert captions_of("a", "x") == ["a"]


def test_fields_of_objects_are_no_captions(folder):
    rows = [{"file_name": f"{i}.png", "caption": {"text": f"dog {i}"}} for i in (1, 2)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    captions, faults = packed(folder)
    assert captions == {}
    assert '"caption" is an object, not a text or a list of texts' in faults.summary()
    assert any(name.endswith("metadata.jsonl, line 1") for name in faults.names["bad caption"])
    with pytest.raises(ValueError, match=r"(?s)nothing could be packed.*metadata\.jsonl, line 1"):
        write_shards(folder_items(folder), folder.parent / "out")

    table = folder.parent / "t.json"
    for value in ({"text": "dog"}, [{"text": "dog"}], 5):
        table.write_text(json.dumps({"1.png": value, "2.png": "a cat"}))
        captions, faults = packed(folder, captions_file=table)
        assert captions == {"2.png": ["a cat"]}
        assert faults.counts == {"empty caption": 1, "bad caption": 1}


def test_rows_of_one_image_are_its_captions_and_strange_rows_are_named(folder):
    (folder / "2.txt").write_text("a cat")
    rows = [("1.png", "a dog"), ("./1.png", "a brown dog"), ("3.png", "nobody")]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    lines += ["", "{", "[1]", '{"text": "x"}']
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    captions, faults = packed(folder)
    assert captions == {"1.png": ["a dog", "a brown dog"]}
    assert faults.counts == {"empty caption": 1, "bad row": 3, "missing image": 1}
    summary = faults.summary()
    assert "3.png (metadata.jsonl names it, im does not hold it)" in summary
    assert "2.png (metadata.jsonl has no row for it)" in summary
    assert "metadata.jsonl, line 5" in summary
    store = SampleStore(folder)
    assert store.skipped.counts == {"incomplete sample": 1, "bad row": 3, "missing image": 1}
    assert "im/2.png (metadata.jsonl has no row for it)" in store.skipped.summary()


def test_equal_names_of_a_table_count_together(folder):
    table = folder.parent / "t.json"
    table.write_text('{"1.png": "one", ".\\\\1.png": ["two"], "1.png": "three"}')
    assert packed(folder, captions_file=table)[0] == {"1.png": ["one", "two", "three"]}


def test_separators_do_not_cut_captions(folder):
    (folder / "1.txt").write_text("a dog\u2028on the beach")
    (folder / "2.txt").write_text("a cat\x0con the sofa\r\na sofa\x85")
    assert packed(folder)[0] == {
        "1.png": ["a dog\u2028on the beach"],
        "2.png": ["a cat\x0con the sofa", "a sofa"],
    }
    row = json.dumps({"file_name": "1.png", "text": "a dog\u2028runs"}, ensure_ascii=False)
    for code in ("utf-8", "utf-8-sig", "utf-16"):
        (folder / "metadata.jsonl").write_bytes((row + "\n").encode(code))
        assert packed(folder)[0] == {"1.png": ["a dog\u2028runs"]}


def test_other_codes_are_named(folder):
    (folder / "1.txt").write_bytes("a cat".encode("utf-16"))
    (folder / "2.txt").write_bytes("ein schöner Hund".encode("latin-1"))
    captions, faults = packed(folder)
    assert captions == {"1.png": ["a cat"]}
    assert "2.txt (not UTF-8 (byte 0xf6 at 7)" in faults.summary()
    store = SampleStore(folder, texts=False)  # who needs no captions reads both images
    table = CaptionTable()
    assert table.of(store.read(0)) == ["a cat"]
    with pytest.raises(BrokenSample, match=r"im/2\.png: bad caption: not UTF-8"):
        table.of(store.read(1))


def coco(folder, *captions):
    images = [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)]
    annotations = [
        {"id": i, "image_id": i, "caption": caption} for i, caption in enumerate(captions, 1)
    ]
    path = folder.parent / "c.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_every_reader_of_coco_captions_agrees(folder):
    path = coco(folder, ["a dog", "a brown dog"], {"text": "a cat"})
    data = ImageCaptions(folder, path, 8)
    assert [item[1] for item in data.items] == [["a dog", "a brown dog"]]
    assert data.skipped.names["bad caption"] == ["c.json, annotation 2 (id 2)"]
    report = write_shards(caption_items(folder, path), folder.parent / "out")
    assert report.skipped.counts == {"bad caption": 1, "empty caption": 1}
    skipped = SkipReport()
    assert list(read_caption_texts(path, skipped)) == ["a dog", "a brown dog"]
    assert skipped.counts == {"bad caption": 1}
    with pytest.raises(BrokenSample, match="annotation 2"):
        captions_of_images(path)


def test_captions_of_another_image_of_the_same_base_name_are_not_taken(tmp_path, images):
    (tmp_path / "im" / "dogs").mkdir(parents=True)
    (tmp_path / "im" / "dogs" / "1.png").write_bytes(images.encoded(images.pixels(1, 8, 8), "PNG"))
    store = SampleStore(tmp_path / "im", texts=False)
    path = tmp_path / "c.json"
    for name, found in (("cats/1.png", []), ("dogs\\1.png", ["a banana"]), ("1.png", ["a banana"])):
        record = {"images": [{"id": 9, "file_name": name, "captions": "a banana"}]}
        path.write_text(json.dumps(record))
        assert CaptionTable(path, store).of(store.read(0)) == found
    with pytest.raises(ValueError, match="pass the store"):
        CaptionTable(path)


def test_a_table_that_is_no_text_is_refused_by_name(folder):
    (folder / "metadata.jsonl").write_bytes(b'{"file_name": "1.png", "text": "sch\xf6n"}')
    with pytest.raises(ValueError, match=r"metadata\.jsonl: bad text: not UTF-8"):
        read_caption_table(folder / "metadata.jsonl")


def test_captions_of_no_image_and_null_are_named_by_every_reader(folder):
    path = coco(folder, "a dog", "a cat")
    record = json.loads(path.read_text())
    record["annotations"][1]["image_id"] = "2"  # a number in another spelling
    record["annotations"] += [None, {"id": 3, "image_id": 9, "caption": "nobody"}]
    path.write_text(json.dumps(record))

    data = ImageCaptions(folder, path, 8)
    assert [item[1] for item in data.items] == [["a dog"], ["a cat"]]
    names = {
        "bad record": ["c.json, annotation 3 (id None)"],
        "caption without image": ["c.json, annotation 4 (id 3)"],
    }
    assert data.skipped.names == names
    assert write_shards(caption_items(folder, path), folder.parent / "out").skipped.names == names
    store = SampleStore(folder, texts=False)
    CaptionTable(path, store)
    assert store.skipped.names == names
    skipped = SkipReport()
    assert list(read_caption_texts(path, skipped)) == ["a dog", "a cat", "nobody"]
    assert skipped.counts == {"bad record": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("images", 1, "id", 1), "two images have one id, 1"),
        (("images", 1, "file_name", "1.png"), r"images 1 and 2 are one file, 1\.png"),
        (("images", 1, "id", "b"), "image ids are numbers, image 2 has id 'b'"),
        (("annotations", 0, "image_id", 7), "no annotation of c.json belongs to an image"),
    ],
)
def test_captions_that_could_mean_two_images_are_refused(folder, change, message):
    path = coco(folder, "a dog")
    record = json.loads(path.read_text())
    table, place, field, value = change
    record[table][place][field] = value
    path.write_text(json.dumps(record))
    for read in (lambda: ImageCaptions(folder, path, 8), lambda: caption_items(folder, path)):
        with pytest.raises(ValueError, match=message):
            read()

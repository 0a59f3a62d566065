"""Panoptic files, alone and against their pngs."""

import json

import numpy as np
import pytest
from clim_data import PanopticRegions
from clim_data.annotations.panoptic import PanopticRecords, SegmentIndex
from clim_data.faults import BrokenSample
from clim_data.pixels.masks import read_segment_ids
from clim_data.sources.items import panoptic_items
from PIL import Image

CATEGORIES = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "grass", "isthing": 0}]
CAT = {"id": 1000, "category_id": 1, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
GRASS = {"id": 300, "category_id": 2, "bbox": [4, 44, 56, 16], "area": 896, "iscrowd": 0}


def segment_ids():
    ids = np.zeros((64, 64), np.uint16)
    ids[8:40, 8:40], ids[44:60, 4:60] = 1000, 300
    return ids


def colours():
    ids = segment_ids()
    return np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)


@pytest.fixture
def place(tmp_path):
    """`place(picture, segments, **save)` writes image, png and json; returns the reader's files."""

    def place(picture=None, segments=(CAT, GRASS), annotation=None, **save):
        for folder in ("im", "p"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "im" / "1.png")
        (picture or Image.fromarray(colours())).save(tmp_path / "p" / "1.png", **save)
        annotation = annotation or {"image_id": 1, "file_name": "1.png", "segments_info": segments}
        record = {
            "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
            "annotations": [annotation],
            "categories": CATEGORIES,
        }
        (tmp_path / "p.json").write_text(json.dumps(record))
        return tmp_path / "im", tmp_path / "p.json", tmp_path / "p"

    return place


def labels_of(files):
    data = PanopticRegions(*files, image_px=64, stride=16)
    return data[0].labels.tolist() if len(data) else [], data.skipped


def palette():
    return Image.fromarray(colours()).quantize(8)


def transparent(alpha):
    seen = np.where(segment_ids() > 0, 255, alpha).astype(np.uint8)
    return Image.fromarray(np.dstack([colours(), seen]))


@pytest.mark.parametrize("picture", [None, palette(), transparent(0)])
def test_exact_colours_are_read_from_every_kind_of_png(place, picture):
    labels, skipped = labels_of(place(picture))
    assert (labels, skipped.total) == ([0, 1], 0)


@pytest.mark.parametrize(
    ("picture", "save", "reason"),
    [
        (Image.fromarray(segment_ids()), {}, "mode I;16: give RGB"),
        (transparent(128), {}, "half transparent: give RGB"),
        (Image.fromarray(colours()).convert("L"), {}, "mode L: give RGB"),
        (None, {"format": "JPEG"}, "a JPEG file: segment ids need a PNG in RGB"),
    ],
)
def test_pngs_without_exact_colours_are_refused(place, picture, save, reason):
    labels, skipped = labels_of(place(picture, **save))
    assert labels == []
    assert skipped.counts == {"bad panoptic png": 1}
    assert reason in skipped.summary()


@pytest.mark.parametrize(
    ("segments", "labels", "counts"),
    [
        ([CAT, GRASS, {**CAT, "id": 7}], [0, 1], {"segment without pixels": 1}),
        ([{**CAT, "id": "1000"}, GRASS], [1], {"bad segment": 1}),
        ([{**CAT, "id": 0}, GRASS], [1], {"bad segment": 1}),
        ([{**CAT, "id": 2**24}, GRASS], [1], {"bad segment": 1}),
        ([CAT, {**GRASS, "id": 1000}], [], {"bad segment": 2}),
        (["cat", GRASS], [1], {"bad segment": 1}),
        ([{**CAT, "area": 5000}, GRASS], [1], {"area mismatch": 1}),
        ([{**CAT, "area": 0}, GRASS], [0, 1], {}),
        ([{**CAT, "category_id": 9}, GRASS], [1], {"unknown category": 1}),
        ([{**CAT, "bbox": [8, 8, -3, 9]}, GRASS], [1], {"bad box": 1}),
        ([CAT, {**GRASS, "bbox": None}], [0, 1], {}),
        ([{**CAT, "iscrowd": "x"}, GRASS], [1], {"bad flag": 1}),
    ],
)
def test_a_bad_segment_is_left_out_alone(place, segments, labels, counts):
    found, skipped = labels_of(place(None, segments))
    assert (found, skipped.counts) == (labels, counts)
    assert all(
        name.startswith("p.json, segment") for names in skipped.names.values() for name in names
    )


def test_colours_in_another_order_are_named(place):
    labels, skipped = labels_of(place(Image.fromarray(colours()[:, :, ::-1].copy())))
    assert labels == []
    assert skipped.counts == {"segment without pixels": 2}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"image_id": 1, "file_name": "1.png"}, "no segments"),
        ({"image_id": 1, "file_name": "1.png", "segments_info": None}, "no segments"),
        ({"image_id": 1, "segments_info": [CAT]}, "path outside the folder"),
        (
            {"image_id": 1, "file_name": "../1.png", "segments_info": [CAT]},
            "path outside the folder",
        ),
    ],
)
def test_a_bad_annotation_is_named_by_every_reader(place, annotation, reason):
    files = place(annotation=annotation)
    records = PanopticRecords.read(files[1])
    assert records.faults.names == {reason: ["p.json, annotation 1 (image_id 1)"]}
    (item,) = panoptic_items(*files).items
    assert item.fault[0] == reason
    faults = []
    with pytest.raises(ValueError, match="lacks images, categories or annotations"):
        SegmentIndex.read(files[1], faults.append)
    assert [fault.reason for fault in faults] == [reason]


def test_an_annotation_that_is_no_object_is_left_out_alone(place):
    files = place()
    record = json.loads(files[1].read_text())
    record["annotations"].append(None)
    files[1].write_text(json.dumps(record))
    labels, skipped = labels_of(files)
    assert labels == [0, 1]
    assert skipped.names == {"bad record": ["p.json, annotation 2 (image_id None)"]}
    faults = []
    assert SegmentIndex.read(files[1], faults.append).is_thing(1, 1000)
    assert [fault.reason for fault in faults] == ["bad record"]


def test_two_annotations_of_one_image_are_refused(place):
    files = place()
    record = json.loads(files[1].read_text())
    record["annotations"] *= 2
    files[1].write_text(json.dumps(record))
    for read in (PanopticRecords.read, lambda path: SegmentIndex.read(path, [].append)):
        with pytest.raises(ValueError, match="image 1 has two annotations"):
            read(files[1])


def test_what_phrases_point_to_is_checked_by_the_same_rules(place):
    segments = [CAT, GRASS, {**GRASS, "id": 5}, {**CAT, "id": 5}, {**CAT, "id": 6, "bbox": []}]
    index = SegmentIndex.read(place(None, segments)[1], [].append)
    assert index.is_thing(1, 1000)
    assert not index.is_thing(1, 300)
    for segment_id, reason in ((5, "bad segment"), (6, "bad box"), (9, "unknown segment")):
        with pytest.raises(BrokenSample, match=reason):
            index.is_thing(1, segment_id)


def test_bytes_are_read_as_files_are(place):
    files = place()
    png = files[2] / "1.png"
    assert np.array_equal(read_segment_ids(png.read_bytes()), segment_ids())
    assert np.array_equal(read_segment_ids(png), segment_ids())

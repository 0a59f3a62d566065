"""The rules for records, one line each; and one broken record in every command."""

import json

import numpy as np
import pytest
from clim_data import BoxLoader, InstanceRegions, ReferringExpressions
from clim_data.annotations.box_rules import box_inside, check_box
from clim_data.annotations.ids import id_key
from clim_data.annotations.records import CocoRecords
from clim_data.annotations.tables import CategoryTable, ImageTable
from clim_data.derive.proposals import convert_results
from clim_data.faults import BrokenSample
from clim_data.files.names import image_file_name
from clim_data.matching.box_json import BoxRules
from clim_data.matching.boxes import load_boxes
from clim_data.sources.items import instance_items
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards

NAN, INF = float("nan"), float("inf")
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
IMAGE = {"id": 1, "file_name": "1.png", "height": 48, "width": 64}


def annotation(number, image_id=1, category_id=1, bbox=(10, 10, 30, 30), **more):
    record = {"id": number, "image_id": image_id, "category_id": category_id, "iscrowd": 0, **more}
    return record if bbox is None else {**record, "bbox": list(bbox)}


@pytest.fixture
def write(tmp_path):
    """`write(annotations, images=, categories=)` writes i.json; returns its path."""

    def write(annotations, images=(IMAGE,), categories=CATEGORIES):
        path = tmp_path / "i.json"
        record = {"images": list(images), "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(record))
        return path

    return write


@pytest.mark.parametrize(
    ("value", "key"),
    [(3, 3), (3.0, 3), ("3", 3), (" 03 ", 3), ("-1", -1), ("a", "a"), ("3.5", "3.5")]
    + [(value, None) for value in (True, None, 3.5, NAN, INF, "", " ", [1], {})],
)
def test_ids_are_compared_as_numbers_or_as_texts(value, key):
    assert id_key(value) == key


@pytest.mark.parametrize(
    ("bbox", "box", "clipped"),
    [
        ((10, 10, 30, 30), (10, 10, 40, 40), False),
        ((0, 0, 64, 48), (0, 0, 64, 48), False),
        ((50, 40, 14.5, 8.5), (50, 40, 64, 48), False),  # by rounding: less than a pixel
        ((50, 40, 400, 400), (50, 40, 64, 48), True),
        ((-9, -9, 20, 20), (0, 0, 11, 11), True),
        ((5, 5, 0.5, 20), (5, 5, 5.5, 25), False),
    ],
)
def test_boxes_are_clipped_to_their_image(bbox, box, clipped):
    assert check_box(bbox, (48, 64)) == (box, clipped)


@pytest.mark.parametrize(
    ("bbox", "reason", "detail"),
    [
        (None, "bad box", "bbox is None, not"),
        ((1, 2, 3), "bad box", "not [x, y, width, height] in pixels"),
        ((1, 1, 20, 20, 0.9), "bad box", "not [x, y, width, height] in pixels"),
        (("1", "1", "20", "20"), "bad box", "not [x, y, width, height] in pixels"),
        ((1, 1, True, 20), "bad box", "not [x, y, width, height] in pixels"),
        ({"x": 1}, "bad box", "not [x, y, width, height] in pixels"),
        ((40, 40, -20, -20), "bad box", "has no area"),
        ((1, 1, 0, 9), "bad box", "has no area"),
        ((NAN, 1, 20, 20), "bad box", "has no area"),
        ((1, 1, INF, 20), "bad box", "has no area"),
        ((-INF, 1, INF, 20), "bad box", "has no area"),
        ((1, 1, 10**400, 20), "bad box", "has no area"),
        ((3, 3, 0.5, 0.5), "bad box", "less than a pixel"),
        ((500, 500, 40, 40), "box outside the image", "in 64 x 48 pixels"),
        ((64, 0, 5, 5), "box outside the image", "in 64 x 48 pixels"),
        ((-5, 0, 5, 5), "box outside the image", "in 64 x 48 pixels"),
    ],
)
def test_bad_boxes_are_named(bbox, reason, detail):
    with pytest.raises(BrokenSample) as caught:
        check_box(bbox, (48, 64), "x")
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def image(number, name="1.png", **more):
    return {"id": number, "file_name": name, **more}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(1), image(1, "2.png")], r"two images have one id, 1 \(1\.png and 2\.png\)"),
        ([image(1), image("1", "2.png")], "image ids are numbers|two images have one id, 1"),
        ([image(1), image(2)], r"images 1 and 2 are one file, 1\.png"),
        ([image(1, "a/b.png"), image(2, "./a\\b.png")], r"images 1 and 2 are one file, a/b\.png"),
        ([image(1), image("b", "2.png")], "image ids are numbers, image 2 has id 'b'"),
        ([image(True)], 'image 1 has no "id"'),
        ([{"file_name": "1.png"}], 'image 1 has no "id"'),
        (["1.png"], 'image 1 has no "id"'),
    ],
)
def test_lists_of_images_that_mean_two_things_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        ImageTable.of(images, "i.json", [].append)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (image(2, "../2.png"), "path outside the folder"),
        (image(2, 7), "bad file name"),
        ({"id": 2}, "no file name"),
        (image(2, "2.png", height=0, width=9), "bad image size"),
        (image(2, "2.png", height=4.5, width=9), "bad image size"),
        (image(2, "2.png", height=NAN, width=9), "bad image size"),
        (image(2, "2.png", height=4), "bad image size"),
    ],
)
def test_a_bad_image_is_left_out_alone(record, reason):
    faults = []
    table = ImageTable.of(
        [image(1), record, image(3, "3.png", height="4", width=9.0)], "i", faults.append
    )
    assert list(table) == [1, 3]
    assert table[3].size == (4, 9)
    assert table.refused == {2}
    assert [fault.reason for fault in faults] == [reason]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], r'id 1 is there twice \("cat", "dog"'),
        ([{"id": 1, "name": "cat"}, {"id": 2, "name": "cat "}], r'two categories are named "cat" \(ids 1 and 2\): join'),
        ([{"id": 1, "name": "caf\u00e9"}, {"id": 2, "name": "cafe\u0301"}], "two categories are named"),
        ([{"id": 1, "name": "\ufeffcat"}, {"id": 2, "name": "cat"}], "two categories are named"),
        ([{"id": 1}], "category 1 has no name"),
        ([{"id": 1, "name": ""}], "category 1 has no name"),
        ([{"id": 1, "name": "cat"}, {"id": "x", "name": "dog"}], "category ids are numbers"),
        ([{"name": "cat"}], 'category 1 has no "id"'),
    ],
)  # fmt: skip
def test_lists_of_categories_that_mean_two_things_are_refused(categories, message):
    with pytest.raises(ValueError, match=message):
        CategoryTable.of(categories, "i.json")


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (annotation(7, image_id=55), "box without image", "image_id 55 is no image of the file"),
        (
            annotation(7, image_id="x"),
            "box without image",
            "image ids are numbers, image_id is 'x'",
        ),
        (annotation(7, image_id=None), "box without image", "image_id is None"),
        (annotation(7, category_id=77), "unknown category", "category_id 77"),
        (annotation(7, category_id=[1]), "unknown category", "category_id [1]"),
        (annotation(7, bbox=None), "bad box", "bbox is None"),
        (annotation(7, iscrowd="maybe"), "bad flag", "iscrowd is 'maybe'"),
    ],
)
def test_a_bad_annotation_is_left_out_alone(write, record, reason, detail):
    records = CocoRecords.read(write([annotation(1), record, annotation(2)]))
    assert len(records.boxes_of(1)) == 2
    assert records.faults.names == {reason: ["i.json, annotation 2 (id 7)"]}
    assert detail in records.faults.summary()
    with pytest.raises(BrokenSample, match=rf"i\.json, annotation 2 \(id 7\): {reason}"):
        CocoRecords.read(write([annotation(1), record]), on_error="raise")


@pytest.mark.parametrize("record", [None, "box", [1, 2], 5])
def test_an_annotation_that_is_no_object_is_left_out_alone(write, record):
    path = write([annotation(1), record, annotation(2)])
    records = CocoRecords.read(path)
    assert len(records.boxes_of(1)) == 2
    assert records.faults.names == {"bad record": ["i.json, annotation 2 (id None)"]}
    assert f"it is {record!r}, not an object" in records.faults.summary()
    with pytest.raises(ValueError, match=r"no annotation of i\.json belongs to an image"):
        CocoRecords.read(write([record]))


@pytest.mark.parametrize("iscrowd", [0, "0", False, None])
@pytest.mark.parametrize("one", [1, "1", 1.0])
def test_numbers_are_read_in_every_spelling(write, one, iscrowd):
    path = write([annotation(1, one, one, iscrowd=iscrowd)])
    (box,) = CocoRecords.read(path).boxes_of(1)
    assert (box.label, box.is_crowd) == (0, False)


def test_every_bad_record_counts(write):
    bad = [annotation(None, bbox=(1, 1, -3, 30)) for _ in range(50)]
    records = CocoRecords.read(write([annotation(1), *bad, *[annotation(7, category_id=9)] * 30]))
    assert records.faults.counts == {"bad box": 50, "unknown category": 30}


def test_files_that_mean_something_else_are_refused(write):
    fractions = [annotation(i, bbox=(0.1, 0.1, 0.4, 0.4)) for i in (1, 2)]
    with pytest.raises(ValueError, match=r"i\.json: all 2 boxes are within 0\.\.1: .* multiply"):
        CocoRecords.read(write(fractions))
    one = CocoRecords.read(write([*fractions, annotation(3)]))
    assert one.faults.counts == {"bad box": 2}
    tiny = {**IMAGE, "height": 1, "width": 1}
    assert CocoRecords.read(write([annotation(1, bbox=(0, 0, 1, 1))], [tiny])).boxes_of(1)
    with pytest.raises(ValueError, match=r"no annotation of i\.json belongs to an image of it"):
        CocoRecords.read(write([annotation(1, "x"), annotation(2, "y")]))


def test_boxes_that_lose_more_than_a_pixel_are_counted_and_used(write):
    records = CocoRecords.read(write([annotation(1, bbox=(40, 30, 90, 90))]))
    assert records.boxes_of(1)[0].box == (40, 30, 64, 48)
    assert records.faults.total == 0
    assert "used all the same 1, box clipped to its image" in records.faults.summary()


def grounding_of(folder, path, tmp_path):
    """What the referring expressions of annotations 1 and 7 of a file leave out."""
    sentence = {"raw": "the cat", "sent": "the cat"}
    refs = [{"image_id": 1, "ann_id": n, "split": "val", "sentences": [sentence]} for n in (1, 7)]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    data = ReferringExpressions(folder, tmp_path / "refs.json", path, split="val")
    assert [data[i].phrases[0].objects for i in range(len(data))] == [(1,)]
    return data.skipped


@pytest.mark.parametrize(
    "bbox", [(40, 40, -20, -20), (NAN, 1, 20, 20), (500, 500, 40, 40), (1, 2, 3)]
)
def test_one_broken_record_gets_one_message_everywhere(tmp_path, images, write, bbox):
    """Packing, training, pseudo labels, evaluation, grounding and proposals."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "1.png").write_bytes(images.encoded(images.pixels(1, 48, 64), "PNG"))
    outline = [[10, 10, 40, 10, 40, 40]]
    records = [annotation(1), annotation(7, bbox=bbox)]
    path = write([{**record, "segmentation": outline} for record in records])

    packed = write_shards(instance_items(folder, path), tmp_path / "out").skipped
    training = BoxLoader(str(folder), batch_size=1, image_px=32, boxes=path).skipped
    labelling = SampleStore(str(folder), texts=False)
    load_boxes(path, labelling, BoxRules(labelled=False))
    evaluation = InstanceRegions(folder, path, image_px=32, stride=16, masks=False)
    assert len(evaluation[0].labels) == 1

    names = ["i.json, annotation 2 (id 7)"]
    (reason,) = training.counts
    for skipped in (packed, training, labelling.skipped, evaluation.skipped):
        assert skipped.names == {reason: names}
        assert skipped.summary() == training.summary()

    grounding = grounding_of(folder, path, tmp_path)
    assert grounding.names == {reason: names}
    assert grounding.summary() == training.summary()

    results = tmp_path / "i.results.json"
    results.write_text(
        json.dumps(
            [{**annotation(n, bbox=b), "score": 0.5} for n, b in ((1, (9, 9, 30, 30)), (7, bbox))]
        )
    )
    proposals = convert_results(results, path, tmp_path / "o.json").skipped
    assert proposals.counts == {reason: 1}
    assert training.faults[0].detail == proposals.faults[0].detail


def test_a_bad_segmentation_leaves_the_others_of_its_image(tmp_path, images, write):
    (tmp_path / "1.png").write_bytes(images.encoded(images.pixels(1, 48, 64), "PNG"))
    good = [[10, 10, 40, 10, 40, 40, 10, 40]]
    kinds = (good, [[10, 10]], [], [[NAN] * 8], {"size": [48, 64], "counts": [3, 5]}, good)
    path = write([annotation(i, segmentation=s) for i, s in enumerate(kinds, 1)])
    data = InstanceRegions(tmp_path, path, image_px=64, stride=16)
    assert len(data[0].labels) == 2
    assert data.skipped.counts == {"bad segmentation": 3, "empty segmentation": 1}
    assert (
        "i.json, annotation 2 (id 2) (a polygon of 2 numbers, at least 6)" in data.skipped.summary()
    )
    assert np.array_equal(data[0].masks[0], data[0].masks[1])


def test_the_short_look_at_boxes_says_what_the_full_check_says():
    values = (-1, 0, 0.5, 1, 1.5, 5, 9.5, 20, 30, 47, 48, 64, 65.0, 10**400, NAN, INF, "1", None)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(3000):
        bbox = [values[i] for i in rng.integers(len(values), size=4)]
        short = box_inside(bbox, (48, 64))
        try:
            full = check_box(bbox, (48, 64))
        except BrokenSample:
            assert short is None
            continue
        if short is not None:
            found += 1
            assert full == (short, False)
    assert found > 50
    assert box_inside([1, 1, 4, 4], None) is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://images.cocodataset.org/train2017/1.jpg", "train2017/1.jpg"),
        ("http://host/a/b/c%20d.jpg?x=1#y", "b/c d.jpg"),
        ("http://host/1.jpg", "/1.jpg"),
        ("train2017/1.jpg", "train2017/1.jpg"),
    ],
)
def test_the_last_two_parts_of_a_url_are_the_name(url, name):
    assert image_file_name({"id": 1, "coco_url": url}) == name

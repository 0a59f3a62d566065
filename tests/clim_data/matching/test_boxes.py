"""Which boxes of a json count, which sample each image of it is, and what is said about the
rest."""

import itertools
import json
import weakref

import numpy as np
import pytest
import torch
from clim_data import BoxLoader, CropLoader
from clim_data.faults import BrokenSample
from clim_data.files.json_stream import stream_json
from clim_data.matching import box_json
from clim_data.matching.box_json import BoxRules
from clim_data.matching.boxes import load_boxes
from clim_data.sources.items import folder_items
from clim_data.sources.store import SampleStore
from clim_data.sources.write import write_shards
from PIL import Image


def image_record(number, name, height=30, width=40):
    return {"id": number, "file_name": name, "height": height, "width": width}


def box_record(number, image_id, bbox=(2, 3, 20, 10), category_id=1, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        **more,
    }


@pytest.fixture
def folder(tmp_path, images):
    """A folder "photos" with the images a.jpg, b.jpg and sub/c.jpg, each 40 x 30."""
    target = tmp_path / "photos"
    (target / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg")):
        (target / name).write_bytes(images.encoded(images.pixels(i, 30, 40)))
    return target


NAMES = ("a.jpg", "b.jpg", "sub/c.jpg")
IMAGES = [image_record(i, name) for i, name in enumerate(NAMES)]
GOOD = [box_record(10 + i, i) for i in range(3)]
CATEGORIES = [{"id": 1, "name": "object"}]


def loaded(folder, path, **options):
    return BoxLoader(folder, batch_size=8, image_px=40, boxes=path, **options)


def test_boxes_are_clipped_and_labelled_by_the_order_of_the_ids(folder, write_json):
    categories = [{"id": 9, "name": "late"}, {"id": 2, "name": "early"}]
    annotations = [box_record(1, 0, (-10, -5, 30, 50), 9), box_record(2, 0, (30, 20, 15, 20), 2)]
    loader = loaded(folder, write_json("b.json", IMAGES, annotations, categories))
    (batch,) = list(loader)
    assert loader.class_names == ["early", "late"]
    assert batch.labels.tolist() == [1, 0]
    assert torch.equal(batch.boxes[0] * 40, torch.tensor([[0, 0, 20, 30], [30, 20, 40, 30.0]]))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (box_record(7, 0, (50, 2, 5, 5)), "box outside the image"),
        (box_record(7, 0, (2, 30, 5, 5)), "box outside the image"),
        (box_record(7, 0, (-9, 2, 9, 5)), "box outside the image"),
        (box_record(7, 0, (2, 2, 0, 5)), "bad box"),
        (box_record(7, 0, (2, 2, 5, -1)), "bad box"),
        (box_record(7, 0, (2, 2, float("nan"), 5)), "bad box"),
        (box_record(7, 0, (2, 2, 5)), "bad box"),
        ({"id": 7, "image_id": 0, "category_id": 1}, "bad box"),
        (box_record(7, 0, category_id=4), "unknown category"),
        (box_record(7, 55), "box without image"),
        ({"id": 7, "category_id": 1, "bbox": [1, 1, 9, 9]}, "box without image"),
        (box_record(7, [0]), "box without image"),
        (box_record(7, 0, category_id=[1]), "unknown category"),
        (None, "bad record"),
    ],
)
def test_boxes_that_cannot_be_used_are_counted_and_named(folder, write_json, record, reason):
    path = write_json("b.json", IMAGES, [*GOOD, record])
    loader = loaded(folder, path)
    shown = "id 7" if record else "id None"
    assert loader.skipped.names == {reason: [f"b.json, annotation 4 ({shown})"]}
    (batch,) = list(loader)
    assert [len(boxes) for boxes in batch.boxes] == [1, 1, 1]
    with pytest.raises(BrokenSample, match=rf"annotation 4 \({shown}\): {reason}"):
        loaded(folder, path, on_error="raise")


def test_crowds_and_sizes(folder, write_json):
    annotations = [
        *GOOD,
        box_record(4, 0, (1, 1, 5, 5), iscrowd=1),
        box_record(5, 0, (0, 0, 40, 30)),
    ]
    path = write_json("b.json", IMAGES, annotations)

    def count(**options):
        (batch,) = list(loaded(folder, path, **options))
        return sum(map(len, batch.boxes))

    assert count() == 4
    assert count(crowd="keep") == 5
    assert count(area_px=(0, 20)) == 3
    assert count(area_px=(0, 20), crowd="keep") == 4
    (batch,) = list(loaded(folder, path, crowd="keep", max_boxes=1))
    assert [len(boxes) for boxes in batch.boxes] == [1, 1, 1]


def test_more_boxes_than_wanted_are_drawn_anew_in_each_epoch(folder, write_json):
    annotations = [box_record(i, 0, (i, i, 8, 9), category_id=i) for i in range(20)]
    categories = [{"id": i, "name": str(i)} for i in range(20)]
    loader = loaded(folder, write_json("b.json", IMAGES, annotations, categories), max_boxes=5)
    draws = []
    for _ in range(3):
        (batch,) = list(loader)
        assert torch.equal((batch.boxes[0][:, 0] * 40).round().long(), batch.labels)
        assert batch.labels.tolist() == sorted(set(batch.labels.tolist()))
        draws.append(tuple(batch.labels.tolist()))
    assert len(set(draws)) == 3


def test_images_without_a_usable_box_are_left_out_up_front(folder, write_json):
    path = write_json("b.json", IMAGES, [GOOD[0], box_record(3, 1, (1, 1, 4, 4))])
    for on_error in ("skip", "raise"):
        loader = CropLoader(
            folder, batch_size=8, image_px=40, crop_px=8, boxes=path, on_error=on_error
        )
        (batch,) = list(loader)
        assert (batch.keys, loader.num_samples) == (["a.jpg"], 1)
        assert loader.skipped.names == {"no usable box": ["b.jpg", "sub/c.jpg"]}
    with pytest.raises(
        ValueError, match=r"no image of the sources has a usable box .*give the json that was made"
    ):
        CropLoader(
            folder, batch_size=8, image_px=40, crop_px=8, boxes=write_json("none.json", IMAGES, [])
        )


def test_images_that_no_source_holds_are_named(folder, write_json):
    path = write_json("b.json", [*IMAGES, image_record(3, "gone.jpg")], [*GOOD, box_record(9, 3)])
    loader = loaded(folder, path)
    assert (loader.num_samples, loader.skipped.names) == (3, {"missing image": ["gone.jpg"]})
    with pytest.raises(
        BrokenSample, match=r"gone\.jpg: missing image: b\.json names it, no source holds it"
    ):
        loaded(folder, path, on_error="raise")
    other = write_json("other.json", [image_record(0, "x/y.jpg")], [box_record(9, 0)])
    with pytest.raises(ValueError, match=r"it names x/y\.jpg, they hold a\.jpg; give the folder"):
        loaded(folder, other)


def test_image_of_another_size_is_named_because_its_boxes_do_not_fit(folder, write_json):
    path = write_json("b.json", [image_record(0, "a.jpg", 300, 400), *IMAGES[1:]], GOOD)
    loader = loaded(folder, path)
    (batch,) = list(loader)
    assert sorted(batch.keys) == ["b.jpg", "sub/c.jpg"]
    assert loader.skipped.names == {"size mismatch": ["photos/a.jpg"]}
    with pytest.raises(
        BrokenSample, match=r"40 x 30 pixels, the json 400 x 300: use the images that it was"
    ):
        list(loaded(folder, path, on_error="raise"))


@pytest.mark.parametrize(
    "name",
    ["/etc/a.jpg", "../a.jpg", "sub/../../photos/a.jpg", "C:\\a.jpg", "..\\a.jpg", "a\0.jpg"],
)
def test_names_that_lead_out_of_the_folder_are_refused(folder, write_json, name):
    path = write_json("b.json", [image_record(0, name), *IMAGES[1:]], GOOD)
    loader = loaded(folder, path)
    assert loader.skipped.names == {"path outside the folder": [name]}
    assert loader.num_samples == 2
    for kind in ("boxes", "images_json"):
        with pytest.raises(BrokenSample, match="path outside the folder"):
            CropLoader(
                folder, batch_size=1, image_px=8, crop_px=8, on_error="raise", **{kind: path}
            )


def test_names_are_matched_in_folders(folder, tmp_path, write_json):
    below = write_json(
        "below.json",
        [image_record(0, "photos/a.jpg"), image_record(1, "photos/sub/c.jpg")],
        GOOD[:2],
    )
    for source in (folder, tmp_path):
        loader = BoxLoader(source, batch_size=2, image_px=8, boxes=below)
        assert sorted(k for b in loader for k in b.keys) in (
            ["a.jpg", "sub/c.jpg"],
            ["photos/a.jpg", "photos/sub/c.jpg"],
        )
    lvis = [{"id": 5, "coco_url": "http://host/photos/b.jpg", "height": 30, "width": 40}]
    loader = BoxLoader(
        folder, batch_size=2, image_px=8, boxes=write_json("lvis.json", lvis, [box_record(1, 5)])
    )
    assert [b.keys for b in loader] == [["b.jpg"]]
    odd = write_json("odd.json", [image_record(0, "./sub//c.jpg")], [box_record(1, 0)])
    assert [b.keys for b in BoxLoader(folder, batch_size=2, image_px=8, boxes=odd)] == [
        ["sub/c.jpg"]
    ]


def test_names_are_matched_in_shards(folder, tmp_path, tar, write_json):
    data = (folder / "a.jpg").read_bytes()
    shard = tar(
        tmp_path / "s.tar",
        [("a.jpg", data), ("x/b.jpg", data), ("odd%2Ename%201.jpg", data), ("other.jpg", data)],
    )
    names = ["train2017/a.jpg", "b.png", "odd.name 1.jpg"]
    path = write_json("b.json", [image_record(i, name) for i, name in enumerate(names)], GOOD)
    loader = BoxLoader(shard, batch_size=4, image_px=8, boxes=path, shuffle=False)
    assert [b.keys for b in loader] == [["a", "x/b", "odd%2Ename%201"]]
    assert loader.skipped.total == 0
    alike = tar(
        tmp_path / "t.tar", [("x/b.jpg", data), ("b.jpg", data)]
    )  # a key goes before the end of another
    assert [b.keys for b in BoxLoader(alike, batch_size=4, image_px=8, boxes=path)] == [["b"]]


@pytest.mark.parametrize("apart", [False, True])
def test_boxes_belong_to_their_image_in_every_order_of_the_json(folder, write_json, apart):
    """Each image has a box of its own; the json has another order than the folder, or images lie in
    two folders."""
    images = [IMAGES[i] for i in (2, 0, 1)]
    if apart:
        (folder / "sub").rename(folder.parent / "other")
        images[0] = {**images[0], "file_name": "c.jpg"}
    annotations = [box_record(i, i, (i, 2 * i, 10 + i, 8)) for i in (1, 2, 0)]
    path = write_json("b.json", images, annotations)
    sources = [folder.parent / "other", folder] if apart else folder
    loader = BoxLoader(sources, batch_size=2, image_px=40, boxes=path, seed=3)
    seen = []
    for batch in loader:
        for key, boxes in zip(batch.keys, batch.boxes, strict=True):
            i = "abc".index(key.rpartition("/")[2][0])
            seen.append(i)
            assert (boxes * 40).round().tolist() == [[i, 2 * i, 10 + 2 * i, 8 + 2 * i]]
    assert sorted(seen) == [0, 1, 2]


def test_names_that_fit_twice_are_refused(folder, tmp_path, tar, write_json):
    data = (folder / "a.jpg").read_bytes()
    shards = [tar(tmp_path / f"{name}.tar", [("a.jpg", data)]) for name in ("s", "t")]
    path = write_json("b.json", [image_record(0, "a.jpg")], [box_record(1, 0)])
    with pytest.raises(
        ValueError,
        match="fits several samples of the sources, a and a: give sources with distinct names",
    ):
        BoxLoader(shards, batch_size=1, image_px=8, boxes=path)
    twice = write_json(
        "twice.json", [image_record(0, "a.jpg"), image_record(1, "sub/../a.jpg")], GOOD[:2]
    )
    with pytest.raises(
        ValueError, match=r"images 0 and 1 are one file, a\.jpg: give them distinct names"
    ):
        loaded(folder, twice)
    ids = write_json("ids.json", [image_record(0, "a.jpg"), image_record(0, "b.jpg")], GOOD[:1])
    with pytest.raises(ValueError, match=r"two images have one id, 0 \(a.jpg and b.jpg\)"):
        loaded(folder, ids)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"annotations": GOOD, "categories": CATEGORIES}, 'no list "images"'),
        (
            {"images": [], "annotations": GOOD, "categories": CATEGORIES},
            'no list "images", or nothing in it',
        ),
        ({"images": IMAGES, "categories": CATEGORIES}, "no image of the sources has a usable box"),
        (
            {"images": IMAGES, "annotations": GOOD},
            'no list "categories", or nothing in it .found "annotations", "ima',
        ),
        (
            {"images": [{"id": 0, "file_name": "a.jpg"}], "categories": CATEGORIES},
            "no height and width",
        ),
        (
            {"images": [{"file_name": "a.jpg"}], "annotations": [], "categories": CATEGORIES},
            'no "id"',
        ),
        ({"images": [{"id": [1]}], "categories": CATEGORIES}, 'no "id"'),
        (
            {"images": IMAGES, "annotations": ["box"], "categories": CATEGORIES},
            "no annotation of b.json belongs to an image",
        ),
        (
            {"images": [{**IMAGES[0], "height": -48}], "categories": CATEGORIES},
            r"no image of b\.json can be used .*bad image size: b\.json, image 1 \(id 0\) "
            r"\(height -48",
        ),
        ("[" * 100_000, "is not a whole json file"),
        ("{", "is not a whole json file"),
        (
            json.dumps({"categories": CATEGORIES, "images": IMAGES, "annotations": GOOD})[:-9],
            "is not a whole json",
        ),
    ],
)
def test_files_that_are_no_boxes_are_refused(folder, tmp_path, record, message):
    (tmp_path / "b.json").write_text(record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(ValueError, match=message):
        loaded(folder, tmp_path / "b.json")


def test_the_order_of_the_lists_changes_nothing(folder, tmp_path):
    annotations = [
        *reversed(GOOD),
        box_record(20, 0, (5, 5, 9, 9)),
        box_record(21, 55),
        box_record(22, 2, (0, 0, 0, 0)),
    ]
    record = {
        "images": IMAGES,
        "annotations": annotations,
        "categories": CATEGORIES,
        "info": {"year": 2017},
    }
    tables, skipped = [], []
    for names in itertools.permutations(record):
        path = tmp_path / "b.json"
        path.write_text(json.dumps({name: record[name] for name in names}))
        store = SampleStore(folder, texts=False)
        tables.append(load_boxes(path, store, BoxRules()))
        skipped.append(store.skipped.names)
    assert tables[0].starts.tolist() == [0, 2, 3, 4]
    assert tables[0].boxes[:2].tolist() == [[2, 3, 22, 13], [5, 5, 14, 14]]
    assert skipped[0] == {
        "box without image": ["b.json, annotation 5 (id 21)"],
        "bad box": ["b.json, annotation 6 (id 22)"],
    }
    assert all(table.stamp() == tables[0].stamp() for table in tables)
    assert all(names == skipped[0] for names in skipped)


def test_boxes_are_not_kept_as_objects(folder, write_json, monkeypatch):
    many = [box_record(i, i % 3, (1.25, 2.5, 3 + i / 100, 4.125)) for i in range(300)]
    path, alive = write_json("b.json", IMAGES, many), []

    class Record(dict):
        """A dict that can be watched."""

    def watched(path):
        seen = []
        for name, item in stream_json(path):
            record = Record(item)
            seen.append(weakref.ref(record))
            yield name, record
            if name == "annotations":
                alive.append(sum(ref() is not None for ref in seen))

    monkeypatch.setattr(box_json, "stream_json", watched)
    assert len(load_boxes(path, SampleStore(folder, texts=False), BoxRules()).boxes) == 300
    assert len(alive) == 600  # the categories come last in this file, so it is read twice
    assert max(alive) <= 2


def test_missing_file_names_the_fix(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        loaded(folder, tmp_path / "nowhere.json")


def test_another_box_is_another_stream(folder, write_json):
    prints = set()
    for bbox in ((2, 3, 20, 10), (2, 3, 20, 11)):
        prints.add(
            loaded(
                folder, write_json("b.json", IMAGES, [*GOOD[1:], box_record(10, 0, bbox)])
            ).fingerprint()
        )
    categories = [{"id": 1, "name": "thing"}]
    prints.add(loaded(folder, write_json("b.json", IMAGES, GOOD, categories)).fingerprint())
    assert len(prints) == 3


def test_table_follows_the_samples_of_the_store(folder, write_json):
    store = SampleStore(folder, texts=False)
    annotations = [
        box_record(1, 2, (1, 1, 9, 9)),
        box_record(2, 0, (3, 3, 9, 9)),
        box_record(3, 2, (5, 5, 9, 9)),
    ]
    table = load_boxes(write_json("b.json", IMAGES[::-1], annotations), store, BoxRules())
    assert len(store) == len(table) == 2
    found = {
        store.read(i).key: table.of_image(store.read(i), Image.new("RGB", (40, 30)))[0][
            :, 0
        ].tolist()
        for i in range(2)
    }
    assert found == {"a.jpg": [3], "sub/c.jpg": [1, 5]}
    assert table.boxes.dtype == np.float64


def test_boxes_follow_the_image_of_their_whole_name(tmp_path, write_json, images):
    """Two images have one base name: a shard keeps their folders apart."""
    for name, colour in (("cats/1.png", 200), ("dogs/1.png", 90)):
        (tmp_path / "im" / name).parent.mkdir(parents=True)
        data = images.encoded(np.full((30, 40, 3), colour, np.uint8), "PNG")
        (tmp_path / "im" / name).write_bytes(data)
        (tmp_path / "im" / name).with_suffix(".txt").write_text("x")
    write_shards(folder_items(tmp_path / "im"), tmp_path / "shards")
    path = write_json("dogs.json", [image_record(0, "dogs/1.png")], [box_record(1, 0)])
    for source in (tmp_path / "im", tmp_path / "shards"):
        (batch,) = list(BoxLoader(source, batch_size=1, image_px=40, boxes=path))
        assert batch.images[0, :, 5, 5].tolist() == [90, 90, 90]
    other = write_json("cows.json", [image_record(0, "cows/1.png")], [box_record(1, 0)])
    with pytest.raises(ValueError, match=r"names cows/1\.png, they hold cats/1\.png"):
        BoxLoader(tmp_path / "shards", batch_size=1, image_px=40, boxes=other)

import json

import pytest
from clim_data.commands.main import main
from clim_data.derive.ov_split import COCO_BASE, COCO_NOVEL, COUNTS, write_ov_split

# The 80 categories of instances_*2017.json: (id, name).
COCO_80 = """1 person,2 bicycle,3 car,4 motorcycle,5 airplane,6 bus,7 train,8 truck,9 boat,10 traffic light,
11 fire hydrant,13 stop sign,14 parking meter,15 bench,16 bird,17 cat,18 dog,19 horse,20 sheep,21 cow,22 elephant,
23 bear,24 zebra,25 giraffe,27 backpack,28 umbrella,31 handbag,32 tie,33 suitcase,34 frisbee,35 skis,36 snowboard,
37 sports ball,38 kite,39 baseball bat,40 baseball glove,41 skateboard,42 surfboard,43 tennis racket,44 bottle,
46 wine glass,47 cup,48 fork,49 knife,50 spoon,51 bowl,52 banana,53 apple,54 sandwich,55 orange,56 broccoli,57 carrot,
58 hot dog,59 pizza,60 donut,61 cake,62 chair,63 couch,64 potted plant,65 bed,67 dining table,70 toilet,72 tv,73 laptop,
74 mouse,75 remote,76 keyboard,77 cell phone,78 microwave,79 oven,80 toaster,81 sink,82 refrigerator,84 book,85 clock,
86 vase,87 scissors,88 teddy bear,89 hair drier,90 toothbrush"""
COCO_CATEGORIES = [
    {"supercategory": "thing", "id": int(number), "name": name}
    for number, name in (entry.strip().split(" ", 1) for entry in COCO_80.split(","))
]


def box(number, image_id, category_id, **more):
    polygon = [[1.5, 2, 9, 2, 9, 8.25]]
    place = {"bbox": [1.5, 2, 7.5, 6.25], "area": 23.4, "iscrowd": 0, "segmentation": polygon}
    return {"id": number, "image_id": image_id, "category_id": category_id, **place, **more}


def coco(tmp_path, categories=COCO_CATEGORIES):
    """Image 1: base and novel; 2: novel only; 3: neither (traffic light); 4: no box; 5: base
    crowd."""
    record = {
        "info": {"year": 2017},
        "licenses": [{"id": 1, "name": "CC"}],
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "height": 20, "width": 30}
            for i in (3, 1, 2, 4, 5)
        ],
        "annotations": [
            box(10, 1, 1),
            box(11, 2, 5),
            box(12, 1, 17),
            box(13, 3, 10),
            box(14, 5, 90, iscrowd=1, segmentation={"size": [20, 30], "counts": [600]}),
        ],
        "categories": categories,
    }
    path = tmp_path / "instances_train2017.json"
    path.write_text(json.dumps(record))
    return path, record


def lvis(tmp_path):
    frequencies = ["f"] * 405 + ["c"] * 461 + ["r"] * 337
    categories = [
        {"id": i + 1, "name": f"thing_{i}", "frequency": f} for i, f in enumerate(frequencies)
    ]
    images = [
        {"id": i, "coco_url": f"http://host/train2017/{i:012d}.jpg", "height": 20, "width": 30}
        | {"neg_category_ids": [2, 1203], "not_exhaustive_category_ids": [1000]}
        for i in (1, 2, 3)
    ]
    for number, image in enumerate(images):
        image["neg_category_ids"] = [2 + number, 1203]
    record = {
        "info": {},
        "annotations": [box(1, 1, 866), box(2, 1, 867), box(3, 2, 1203)],
        "images": images,
        "licenses": [],
        "categories": categories[::-1],
    }
    path = tmp_path / "lvis_v1_train.json"
    path.write_text(json.dumps(record))
    return path, record


def test_the_class_lists_are_48_and_17_different_official_names():
    official = {c["name"] for c in COCO_CATEGORIES}
    assert (
        len(COCO_80.split(",")),
        len(COCO_BASE),
        len(COCO_NOVEL),
        len({*COCO_BASE, *COCO_NOVEL}),
    ) == (
        80,
        48,
        17,
        65,
    )
    assert {*COCO_BASE, *COCO_NOVEL} < official


def test_golden_classes(golden):
    lists = golden("classes", "detection").meta
    assert lists["coco_ids"] == {one["name"]: one["id"] for one in COCO_CATEGORIES}
    assert lists["ov_coco_base"] == list(COCO_BASE)
    assert lists["ov_coco_novel"] == list(COCO_NOVEL)
    assert COUNTS["ov-coco"] == (len(lists["ov_coco_base"]), len(lists["ov_coco_novel"]))
    counts = lists["lvis"]["counts"]
    assert COUNTS["ov-lvis"] == (counts["base"], counts["r"])


def test_coco_training_holds_base_boxes_and_their_images_as_they_were(tmp_path):
    path, record = coco(tmp_path)
    report = write_ov_split("ov-coco", path, tmp_path / "base.json")
    written = json.loads((tmp_path / "base.json").read_bytes())
    assert written["annotations"] == [record["annotations"][0], record["annotations"][4]]
    assert [image["id"] for image in written["images"]] == [1, 5]
    assert written["images"][0] == record["images"][1]
    assert [c["id"] for c in written["categories"]] == sorted(
        c["id"] for c in written["categories"]
    )
    assert {c["name"] for c in written["categories"]} == set(COCO_BASE)
    assert {c["split"] for c in written["categories"]} == {"base"}
    assert (written["info"], written["licenses"]) == (record["info"], record["licenses"])
    assert (report.classes, report.images, report.boxes, report.left_out) == ((48, 0), 2, (2, 0), 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"bbox": [40, 2, 5, 5]},
        {"bbox": [1, 2, 0, 5]},
        {"bbox": [1, 2, "3", 5]},
        {"bbox": None},
        {"bbox": [1, 2, 10**400, 5]},
        {"iscrowd": "x"},
    ],
)
def test_an_image_whose_only_box_is_bad_is_left_out(tmp_path, bad):
    path, record = coco(tmp_path)
    record["annotations"][4] |= bad
    record["annotations"].append(None)
    path.write_text(json.dumps(record))
    report = write_ov_split("ov-coco", path, tmp_path / "base.json")
    written = json.loads((tmp_path / "base.json").read_bytes())
    assert [image["id"] for image in written["images"]] == [1]
    assert written["annotations"] == [record["annotations"][0]]
    assert (report.images, report.boxes, report.left_out) == (1, (1, 0), 4)
    assert report.skipped.total == 2


def test_coco_validation_holds_all_65_classes(tmp_path):
    path, _ = coco(tmp_path)
    report = write_ov_split("ov-coco", path, tmp_path / "all.json", classes="all")
    written = json.loads((tmp_path / "all.json").read_bytes())
    assert [a["id"] for a in written["annotations"]] == [10, 11, 12, 14]
    assert [image["id"] for image in written["images"]] == [1, 2, 5]
    assert {c["name"] for c in written["categories"] if c["split"] == "novel"} == set(COCO_NOVEL)
    assert (report.classes, report.boxes) == ((48, 17), (2, 2))


def test_images_without_a_box_are_kept_when_asked(tmp_path):
    path, _ = coco(tmp_path)
    report = write_ov_split("ov-coco", path, tmp_path / "base.json", keep_empty=True)
    assert (report.images, report.left_out) == (5, 0)
    assert [im["id"] for im in json.loads((tmp_path / "base.json").read_bytes())["images"]] == [
        3,
        1,
        2,
        4,
        5,
    ]


def test_lvis_splits_by_frequency_and_tells_nothing_of_rare_classes_in_training(tmp_path):
    path, record = lvis(tmp_path)
    report = write_ov_split("ov-lvis", path, tmp_path / "base.json")
    written = json.loads((tmp_path / "base.json").read_bytes())
    assert [c["id"] for c in written["categories"]] == list(range(1, 867))
    assert written["annotations"] == [record["annotations"][0]]
    assert written["images"] == [
        record["images"][0] | {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    ]
    assert (report.classes, report.boxes, report.left_out) == ((866, 0), (1, 0), 2)

    report = write_ov_split("ov-lvis", path, tmp_path / "all.json", classes="all")
    written = json.loads((tmp_path / "all.json").read_bytes())
    assert written["images"] == record["images"]
    assert [c["id"] for c in written["categories"]] == list(range(1, 1204))
    assert (report.classes, report.boxes, report.images) == ((866, 337), (1, 2), 3)


@pytest.mark.parametrize(
    ("kind", "categories", "found"),
    [
        ("ov-coco", COCO_CATEGORIES[:-1], "47 of the 48 base and 17 of the 17 novel"),
        ("ov-lvis", COCO_CATEGORIES, "0 of the 866 base and 0 of the 337 novel"),
        (
            "ov-coco",
            [c for c in COCO_CATEGORIES if c["name"] != "cat"],
            "48 of the 48 base and 16 of the 17 novel",
        ),
    ],
)
def test_another_file_is_refused_with_the_counts_found(tmp_path, kind, categories, found):
    path, _ = coco(tmp_path, categories)
    with pytest.raises(ValueError, match=f"{found} classes .* official .* --allow-partial"):
        write_ov_split(kind, path, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_subset_is_split_when_allowed(tmp_path):
    path, _ = coco(
        tmp_path, [c for c in COCO_CATEGORIES if c["name"] in ("person", "cat", "traffic light")]
    )
    report = write_ov_split(
        "ov-coco", path, tmp_path / "all.json", classes="all", allow_partial=True
    )
    assert (report.classes, report.boxes) == ((1, 1), (1, 1))


def test_what_cannot_be_split_is_an_error_that_names_the_fix(tmp_path):
    path, _ = coco(tmp_path)
    with pytest.raises(ValueError, match="kind='coco' classes='base': use one of"):
        write_ov_split("coco", path, tmp_path / "out.json")
    with pytest.raises(ValueError, match="is the annotation file itself: give another output"):
        write_ov_split("ov-coco", path, path)
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": [], "annotations": [{"image_id": 1, "caption": ""}]})
    )
    with pytest.raises(ValueError, match=r"captions\.json has 0 of the 48 base"):
        write_ov_split("ov-coco", tmp_path / "captions.json", tmp_path / "out.json")
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="not a whole json file"):
        write_ov_split("ov-coco", path, tmp_path / "out.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "captions.json",
        "instances_train2017.json",
    ]


def test_the_command_writes_both_sides(tmp_path, capsys):
    path, _ = coco(tmp_path)
    assert (
        main(
            [
                "ov-split",
                "coco",
                "--train",
                str(path),
                "--val",
                str(path),
                "--out",
                str(tmp_path / "ov"),
            ]
        )
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "ov").iterdir()) == [
        "ov_coco_train.json",
        "ov_coco_val.json",
    ]
    assert (
        "2 images, 2 boxes of 48 base classes, 0 of 0 novel classes; 3 images left out"
        in capsys.readouterr().out
    )
    assert main(["ov-split", "lvis", "--train", str(path), "--out", str(tmp_path / "ov")]) == 2
    assert main(["ov-split", "coco", "--out", str(tmp_path / "ov")]) == 2
    assert "give --train, --val or both" in capsys.readouterr().err

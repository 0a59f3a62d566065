"""Pascal VOC in its official layout as a COCO json."""

import json

import pytest
from clim_data.commands.main import main
from clim_data.derive.voc import VOC_CLASSES

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin>"
    "<ymin>3</ymin><xmax>20</xmax><ymax>12</ymax></bndbox></object>"
)


def write_image(root, stem, *objects):
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    text = f"<annotation><filename>{stem}.jpg</filename>{size}{''.join(objects)}</annotation>"
    (root / "Annotations" / f"{stem}.xml").write_text(text)


def test_golden_classes(golden):
    names = golden("classes", "detection").meta["voc"]
    assert [name.replace(" ", "") for name in names] == list(VOC_CLASSES)


@pytest.fixture
def year(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_text("000001\n000002\n000003\n")
    dog = OBJECT.format(name="dog", difficult=0, x=1)
    hard = OBJECT.format(name="tvmonitor", difficult=1, x="5.5")
    write_image(root, "000001", dog, hard)
    write_image(root, "000002", OBJECT.format(name="unicorn", difficult=0, x=1))
    (root / "Annotations/000003.xml").write_text("<annotation>")
    return root


def test_corners_classes_and_difficult_objects(year, tmp_path, capsys):
    out = tmp_path / "voc.json"
    assert main(["voc", str(year), "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert [one["file_name"] for one in written["images"]] == ["000001.jpg", "000002.jpg"]
    names = {one["id"]: one["name"] for one in written["categories"]}
    assert len(names) == len(VOC_CLASSES) == 20
    dog, monitor = written["annotations"]
    # Corners count from 1 and are inclusive.
    assert (names[dog["category_id"]], dog["bbox"], dog["iscrowd"]) == ("dog", [0, 2, 20, 10], 0)
    assert (names[monitor["category_id"]], monitor["iscrowd"]) == ("tv monitor", 1)
    assert monitor["bbox"][0] == 4.5
    printed = capsys.readouterr().out
    assert "2 images, 1 boxes" in printed
    assert "unicorn" in printed or "000002.xml" in printed
    assert "000003.xml" in printed


def test_another_folder_is_named(tmp_path, capsys):
    assert main(["voc", str(tmp_path), "--out", str(tmp_path / "voc.json")]) == 2
    assert "VOCdevkit/VOC2007" in capsys.readouterr().err

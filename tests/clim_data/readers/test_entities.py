"""Flickr30k Entities: captions and boxes as their authors write them."""

import numpy as np
import pytest
from clim_data import FlickrEntities
from clim_data.annotations.entities import read_entity_boxes, read_entity_captions
from clim_data.faults import BrokenSample
from PIL import Image

CAPTIONS = """[/EN#1/people Two young guys] with [/EN#2/bodyparts/other shaggy hair] in [/EN#8/scene the yard] .
A dog runs [/EN#0/notvisual all day] .
"""
BOXES = """<annotation>
  <size><width>30</width><height>20</height></size>
  <object><name>1</name><bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>8</ymax></bndbox>
  </object>
  <object><name>1</name><name>2</name>
    <bndbox><xmin>21</xmin><ymin>11</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
  <object><name>8</name><scene>1</scene><nobndbox>1</nobndbox></object>
</annotation>
"""


@pytest.fixture
def places(tmp_path):
    for name, text in (("Sentences/7.txt", CAPTIONS), ("Annotations/7.xml", BOXES)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "7.jpg")
    (tmp_path / "test.txt").write_text("7\n8\n")
    return tmp_path


def test_phrases_with_their_boxes(places):
    data = FlickrEntities(places / "images", places, split=places / "test.txt")
    assert len(data) == 1
    assert data.skipped.total == 2  # the second caption has no phrase, image 8 no captions
    sample = data[0]
    assert sample.segments == (
        ("Two young guys", 0),
        ("with", -1),
        ("shaggy hair", 1),
        ("in the yard .", -1),
    )
    # Whole numbers from 1 on, both inclusive, become edges.
    assert sample.mask_source.boxes == (
        ((0.0, 2.0, 10.0, 8.0), (20.0, 10.0, 30.0, 20.0)),
        ((20.0, 10.0, 30.0, 20.0),),
    )
    _, masks = sample.load()
    expected = np.zeros((2, 20, 30), bool)
    expected[:, 10:20, 20:30] = True
    expected[0, 2:8, 0:10] = True
    assert np.array_equal(masks, expected)
    assert [phrase.is_plural for phrase in sample.phrases] == [True, False]
    assert len(FlickrEntities(places / "images", places)) == 1


def test_captions_keep_words_and_places(places):
    first, second = read_entity_captions(places / "Sentences" / "7.txt")
    assert first.text == "Two young guys with shaggy hair in the yard ."
    assert [first.text[p.start : p.end] for p in first.phrases] == [
        "Two young guys",
        "shaggy hair",
        "the yard",
    ]
    assert first.phrases[1].kinds == ("bodyparts", "other")
    assert second.phrases[0].chain == "0"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<xmin>1<", "<xmin>x<", "invalid literal"),
        ("<xmax>10<", "<xmax>0<", "no area"),
        ("<width>30</width>", "", "it has no size/width"),
        ("</annotation>", "", "no element found"),
        ("<annotation>", "<!DOCTYPE a><annotation>", "declares entities"),
    ],
)
def test_a_broken_file_of_boxes_is_named(places, old, new, reason):
    path = places / "Annotations" / "7.xml"
    path.write_text(BOXES.replace(old, new, 1))
    with pytest.raises(BrokenSample, match=reason):
        read_entity_boxes(path)
    with pytest.raises(ValueError, match="no usable caption"):
        FlickrEntities(places / "images", places)


def test_missing_folders_and_other_images_are_refused(places):
    with pytest.raises(FileNotFoundError, match="doctor --need flickr30k-entities"):
        FlickrEntities(places / "images", places / "elsewhere")
    Image.new("RGB", (20, 30)).save(places / "images" / "7.jpg")
    with pytest.raises(BrokenSample, match="size mismatch"):
        FlickrEntities(places / "images", places)[0].load()


def test_a_damaged_mark_is_no_word_of_a_caption(places):
    path = places / "Sentences" / "7.txt"
    path.write_text(
        "[/EN#1/people Two guys look up .\n[/EN#1/people  ] look .\n[/EN#1/people Guys] look .\n"
    )
    data = FlickrEntities(places / "images", places)
    assert [data[i].key for i in range(len(data))] == ["7-2"]
    assert [fault.name for fault in data.skipped.faults] == ["7.txt, caption 1", "7.txt, caption 2"]


def test_ids_stay_in_their_folders_and_count_once(places):
    (places / "test.txt").write_text("7\n../Sentences/7\n7\n")
    data = FlickrEntities(places / "images", places, split=places / "test.txt")
    assert len(data) == 1
    assert "path outside the folder" in data.skipped.counts


def test_declarations_in_another_code_are_seen(places):
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]>' + BOXES
    (places / "Annotations" / "7.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(BrokenSample, match="declares entities"):
        read_entity_boxes(places / "Annotations" / "7.xml")

"""ReasonSeg: files as their authors write them, outlines, and what is wrong with a file."""

import json

import numpy as np
import pytest
from clim_data import ReasoningSegmentation
from clim_data.annotations.reasonseg import ReasonSegRecord
from clim_data.faults import BrokenSample
from PIL import Image

SQUARE = [[2, 2], [17, 2], [17, 17], [2, 17]]


def write(folder, name="one", *, encoding="utf-8", image=True, **changes):
    folder.mkdir(exist_ok=True)
    record = {
        "text": ["what is it that shines", "the lamp"],
        "is_sentence": True,
        "shapes": [
            {"label": "ignore", "points": [[4, 4], [9, 4], [9, 9], [4, 9]]},
            {"label": "target", "points": SQUARE},
            {"label": "flag", "points": []},
        ],
        **changes,
    }
    (folder / f"{name}.json").write_bytes(json.dumps(record, ensure_ascii=False).encode(encoding))
    if image:
        Image.new("RGB", (30, 20)).save(folder / f"{name}.jpg")


def test_a_question_and_its_mask(tmp_path):
    write(tmp_path / "val")
    write(tmp_path / "val", "two", text="caf\u00e9 table", is_sentence=False, encoding="cp1252")
    data = ReasoningSegmentation(tmp_path / "val")
    assert [data[i].key for i in range(len(data))] == ["one", "two"]
    assert data[1].phrases[0].text == "caf\u00e9 table"
    assert data.long_questions() == {"one": True, "two": False}
    image, masks = data[0].load()
    expected = np.zeros((20, 30), bool)
    expected[2:18, 2:18] = True
    ignored = np.zeros((20, 30), bool)
    ignored[4:10, 4:10] = True
    assert image.size == (30, 20)
    # The largest outline is drawn first, so that smaller ones lie on it.
    assert np.array_equal(masks, (expected & ~ignored)[None])
    assert np.array_equal(data[0].mask_source.ignored((20, 30)), ignored)
    every = ReasoningSegmentation(tmp_path / "val", queries="all")
    assert [every[i].key for i in range(len(every))] == ["one-0", "one-1", "two-0"]
    assert every.stamp() != data.stamp()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": []}, "no list of queries"),
        ({"text": [3]}, "no list of queries"),
        ({"shapes": None}, "no list"),
        ({"shapes": []}, "no shape is a target"),
        ({"shapes": [{"label": "target", "points": SQUARE[:2]}]}, "2 points"),
        ({"shapes": [{"label": "target", "points": [[0, "x"]]}]}, "is not \\[x, y\\]"),
        ({"shapes": [{"label": "target", "points": [[0, float("nan")]]}]}, "is not \\[x, y\\]"),
        ({"shapes": [{"label": 3, "points": SQUARE}]}, "label is 3"),
    ],
)
def test_a_broken_file_is_named(tmp_path, changes, reason):
    write(tmp_path / "val", **changes)
    with pytest.raises(BrokenSample, match=reason):
        ReasonSegRecord.read(tmp_path / "val" / "one.json")
    write(tmp_path / "val", "two")
    data = ReasoningSegmentation(tmp_path / "val")
    assert len(data) == 1
    assert data.skipped.total == 1


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="doctor --need reasonseg"):
        ReasoningSegmentation(tmp_path / "val")
    write(tmp_path / "val", image=False)
    with pytest.raises(ValueError, match=r"no usable question .*missing image"):
        ReasoningSegmentation(tmp_path / "val")
    with pytest.raises(ValueError, match="first, all"):
        ReasoningSegmentation(tmp_path / "val", queries="second")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[200, 200], [220, 200], [220, 220]], "the target has no pixel in the image of 30 x 20"),
        ([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], "its points are from 0 to 1"),
    ],
)
def test_outlines_that_are_not_in_the_image_are_refused(tmp_path, points, message):
    write(tmp_path / "val", shapes=[{"label": "target", "points": points}])
    sample = ReasoningSegmentation(tmp_path / "val")[0]
    with pytest.raises(BrokenSample, match=message):
        sample.load()


def test_two_images_of_one_name_are_ambiguous(tmp_path):
    write(tmp_path / "val")
    write(tmp_path / "val", "two")
    Image.new("RGB", (9, 9)).save(tmp_path / "val" / "one.png")
    data = ReasoningSegmentation(tmp_path / "val")
    assert [data[i].key for i in range(len(data))] == ["two"]
    assert data.skipped.counts == {"ambiguous name": 1}

"""Questions of Visual CoT: one bad question is named and leaves the others."""

import json

import pytest
from clim_data.annotations.visual_cot import VisualCotRecords


def question(number, box="[2, 3, 20, 30]", **more):
    turns = [{"value": "<image>\nThe dog?"}, {"value": "a dog"}]
    image = [f"{number}.png", f"{number}.png###{box}"]
    return {"question_id": number, "image": image, "conversations": turns, **more}


def read(tmp_path, records):
    (tmp_path / "cub.json").write_text(json.dumps(records))
    return VisualCotRecords.read(tmp_path / "cub.json")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "bad question"),
        (question(2, conversations=None), "bad question"),
        (question(2, conversations=[{"value": "only one"}]), "bad question"),
        (question(2, conversations=[{"value": 1}, {"value": 2}]), "bad question"),
        (question(2, image="2.png"), "bad question"),
        (question(2, image=[2, 3]), "bad question"),
        (question(2, image=["../2.png", "x###[1, 2, 3, 4]"]), "path outside the folder"),
        (question(2, box=""), "bad box"),
        (question(2, box="[1, 2, 3]"), "bad box"),
        (question(2, box="[20, 30, 2, 3]"), "bad box"),
        (question(2, box="[0.1, 0.1, 0.5, 0.5]"), "bad box"),
        (question(2, box="[10.2, 3, 10.8, 30]"), "bad box"),
    ],
)
def test_a_bad_question_is_left_out_alone(tmp_path, record, reason):
    found = read(tmp_path, [question(1), record, question(3, box="[2.5, 3, 20.25, 30]")])
    assert [q.key for q in found.questions] == ["cub-1", "cub-3"]
    assert [q.box for q in found.questions] == [(2, 3, 20, 30)] * 2
    assert [(f.reason, f.name) for f in found.faults] == [(reason, "cub.json, question 2")]


@pytest.mark.parametrize("records", [[], [{}], {"questions": []}, [question(1), question(1)]])
def test_files_that_are_something_else_are_refused(tmp_path, records):
    with pytest.raises(ValueError, match=r"not a file of the Visual CoT|cub-1 twice"):
        read(tmp_path, records)

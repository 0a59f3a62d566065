"""Recall whatever the class, and what the report says of a difference."""

from types import SimpleNamespace

import pytest
import torch
from clim_models.detection import ClassSet, Detections
from clim_train.experiments.detection import measure
from clim_train.experiments.detection.detectors import BACKBONES
from clim_train.experiments.detection.report import detection_table, difference
from clim_train.experiments.detection.stored import StoredMaps

START, CLIM = BACKBONES["start"].title, BACKBONES["clim"].title


def test_a_box_counts_for_recall_whatever_its_class(monkeypatch):
    true = [torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), torch.tensor([[0.0, 0, 10, 10]])]
    labels = [torch.tensor([0, 2]), torch.tensor([3])]
    monkeypatch.setattr(measure, "scene_boxes", lambda folder: (true, labels))
    scenes = SimpleNamespace(test=None, concepts=SimpleNamespace(shown=("a", "b")))
    # IoU 0.8 with the first box, 0.25 with the second.
    near = torch.tensor([[0.0, 0, 10, 8], [20, 20, 25, 25]])
    found = [
        Detections(near, torch.ones(2), torch.tensor([5, 5])),
        Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
    ]
    assert measure.recalls(found, scenes) == {"recall.base": 1.0, "recall.novel": 0.0}


class FindsByName:
    """Stands for a detector: it finds the boxes that it is told, of the classes it is asked for."""

    def __init__(self, found):
        self.found, self.asked = found, []

    def eval(self):
        return self

    def with_classes(self, classes):
        self.asked.append(classes)
        return self

    def detect_in_maps(self, tower, frames):
        names = self.asked[-1].names
        rows = [(name, *row) for name, *row in self.found if name in names]
        labels = torch.tensor([names.index(name) for name, *_ in rows], dtype=torch.int64)
        scores = torch.tensor([score for _, score, _ in rows])
        boxes = torch.tensor([box for *_, box in rows]).reshape(-1, 4)
        return [Detections(boxes, scores, labels)]


def test_a_word_is_found_where_its_best_box_is_on_its_drawing(monkeypatch):
    """Two scenes; base "a" and "b" (b is not shown), novel "c" and "d"."""
    first = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])
    boxes = [first, torch.tensor([[0.0, 0, 10, 10]])]
    # The first scene shows "a" twice, and "c"; the second shows "d".
    labels = [torch.tensor([0, 0, 1]), torch.tensor([2])]
    monkeypatch.setattr(measure, "scene_boxes", lambda folder: (boxes, labels))
    whole = ClassSet(["a", "b", "c", "d"], torch.eye(4), range(2))
    concepts = SimpleNamespace(shown=("a",), base=("a", "b"))
    vocabularies = {"own names": whole}
    scenes = SimpleNamespace(test=None, concepts=concepts, vocabularies=vocabularies)
    maps = StoredMaps([torch.zeros(2, 1, 1, 1)], torch.zeros(2, 4, 1, 1), None)

    on_second, off = [20.0, 20, 30, 31], [60.0, 60, 70, 70]
    detector = FindsByName(
        [("a", 0.9, on_second), ("a", 0.2, off), ("c", 0.3, first[2].tolist()), ("c", 0.5, off)]
    )
    found = list(measure.answers(detector, maps, scenes))

    # Asked for what it shows and for the words of the other scene, never for all.
    assert [classes.names for classes in detector.asked] == [("a", "c", "d"), ("d", "a", "c")]
    assert [sorted(classes.base) for classes in detector.asked] == [[0], [1]]
    assert found[0].words == ["a", "a", "c"]
    # The best box of "a" is on one of its two drawings; that of "c" is off.
    assert found[0].right.tolist() == [True, True, False]
    assert found[0].boxes[0].tolist() == on_second
    # "d" has no box.
    assert found[1].boxes.tolist() == [[0, 0, 0, 0]]
    assert found[1].right.tolist() == [False]


def rows(start, clim):
    return {
        START: [{"AP50.base": 0.5, "AP50.novel": value} for value in start],
        CLIM: [{"AP50.base": 0.5, "AP50.novel": value} for value in clim],
    }


@pytest.mark.parametrize(
    ("start", "clim", "said"),
    [
        (
            [0.10],
            [0.12],
            "2.0 points higher on the tower after CLIM than on “pretrained clim-tiny”",
        ),
        ([0.12], [0.10], "2.0 points lower"),
        ([0.10], [0.12], "with one seed, nobody knows how much of that is chance"),
        ([0.10, 0.10], [0.14, 0.15], "4.5 points higher"),
        ([0.10, 0.10], [0.14, 0.15], "(± 0.7 over 2 seeds)"),
        ([0.10, 0.10], [0.08, 0.13], "(± 3.5 over 2 seeds, which may be chance)"),
    ],
)
def test_the_difference_is_said_whichever_way_it_goes(start, clim, said):
    assert said in difference(rows(start, clim))


def test_the_table_has_the_columns_that_were_measured():
    head = detection_table(rows([0.1], [0.2])).splitlines()[0]
    assert "AP50 novel" in head
    assert "recall" not in head

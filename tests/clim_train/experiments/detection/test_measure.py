"""Recall whatever the class, and what the report says of a difference."""

from types import SimpleNamespace

import pytest
import torch
from clim_models.detection import Detections
from clim_train.experiments.detection import measure
from clim_train.experiments.detection.detectors import BACKBONES
from clim_train.experiments.detection.report import detection_table, difference

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

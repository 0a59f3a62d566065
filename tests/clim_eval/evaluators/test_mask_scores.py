"""Overlap counts against a slow loop; per-sample lines that survive a kill and join several
processes."""

import json

import numpy as np
import pytest
import torch
from clim_eval.evaluators import mask_scores
from clim_eval.evaluators.mask_scores import MaskScores
from clim_eval.metrics.masks import MaskOverlaps, ious, mask_overlaps
from conftest import GOLDEN

LOSSES = sorted(path.stem for path in (GOLDEN / "flmm" / "losses").glob("case*.json"))


@pytest.mark.parametrize("name", LOSSES)
def test_golden_overlaps(golden, name):
    case = golden(f"losses/{name}", "flmm")
    found = mask_overlaps(case.tensor("logits"), case.tensor("gt") > 0)
    assert found.intersections.tolist() == case.arrays["intersection"].tolist()
    assert found.unions.tolist() == case.arrays["union"].tolist()
    iou = ious(found.intersections.numpy(), found.unions.numpy(), empty=0.0)
    assert iou == pytest.approx(case.arrays["iou"], rel=1e-6)


def random_pair(seed, masks=3, small=(9, 7), large=(21, 16)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(masks, *small, generator=generator) * 3
    return logits, torch.rand(masks, *large, generator=generator) > 0.6


def test_overlaps_are_those_of_a_loop_over_masks_and_pixels(monkeypatch):
    logits, masks = random_pair(1)
    found = mask_overlaps(logits, masks)
    for k in range(len(masks)):
        shares = torch.nn.functional.interpolate(
            logits[k].sigmoid()[None, None], masks.shape[-2:], mode="bilinear"
        )
        predicted = (shares[0, 0] > 0.5).flatten().tolist()
        true = masks[k].flatten().tolist()
        assert found.intersections[k] == sum(p and t for p, t in zip(predicted, true))
        assert found.unions[k] == sum(p or t for p, t in zip(predicted, true))
    assert found.pixels == 21 * 16
    monkeypatch.setattr("clim_eval.metrics.masks._CPU_VALUES", 21 * 16 * 2)  # pieces of two masks
    pieces = mask_overlaps(logits, masks.to(torch.uint8))
    assert torch.equal(pieces.unions, found.unions)
    assert torch.equal(pieces.intersections, found.intersections)


def test_overlaps_of_logits_at_full_size_and_of_none():
    logits = torch.tensor([[[1.0, -1.0], [0.0, 1e-3]]])
    found = mask_overlaps(logits, torch.tensor([[[1, 1], [1, 0]]]))
    assert (found.intersections.tolist(), found.unions.tolist()) == ([1], [4])
    none = mask_overlaps(torch.zeros(0, 4, 4), torch.zeros(0, 8, 8))
    assert len(none.unions) == 0
    with pytest.raises(ValueError, match=r"\(N, h, w\)"):
        mask_overlaps(torch.zeros(2, 4, 4), torch.zeros(1, 4, 4))


def overlaps(*pairs, pixels=10):
    counts = torch.tensor(pairs).reshape(-1, 2)
    return MaskOverlaps(counts[:, 0], counts[:, 1], pixels)


def test_scores_survive_and_join_processes(tmp_path):
    first, second = (MaskScores(tmp_path, rank=r, config={"model": "m"}) for r in range(2))
    first.add("b", overlaps((1, 2), (0, 3)), is_plural=[True, False])
    second.add("a", overlaps((4, 4), pixels=20), is_plural=[False])
    assert "a" not in first
    with open(tmp_path / "scores-0001.jsonl", "a") as out:
        out.write('{"key": "c", "inters')  # killed while writing
    again = MaskScores(tmp_path, rank=1, config={"model": "m"})
    assert "a" in again
    assert "b" in again
    assert "c" not in again
    again.add("c", overlaps((2, 5)), is_plural=[True])
    whole = MaskScores(tmp_path, rank=7, config={"model": "m"})
    assert len(whole) == 3
    assert whole.column("intersections").tolist() == [4, 1, 0, 2]
    assert whole.column("unions").tolist() == [4, 2, 3, 5]
    assert whole.column("is_plural").tolist() == [False, True, False, True]
    assert whole.pixels().tolist() == [20, 10, 10, 10]
    lines = (tmp_path / "scores-0001.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "c"]
    with pytest.raises(ValueError, match="use another folder"):
        MaskScores(tmp_path, config={"model": "another"})


def test_ranks_of_a_process_group_share_what_they_scored(monkeypatch):
    mine, other = MaskScores(), MaskScores()
    mine.add("a", overlaps((1, 2)))
    other.add("b", overlaps((3, 4)))
    monkeypatch.setattr(mask_scores, "gather_objects", lambda rows: [rows, other.rows])
    assert mine.gather().column("unions").tolist() == [2, 4]


def test_mistakes_and_damage_are_told(tmp_path):
    scores = MaskScores(tmp_path)
    with pytest.raises(ValueError, match="pass one for each"):
        scores.add("a", overlaps((1, 2)), is_thing=[True, False])
    scores.add("a", overlaps((1, 2)))
    with pytest.raises(ValueError, match="pass it to add"):
        scores.column("is_thing")
    path = tmp_path / "scores-0000.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1 is damaged"):
        MaskScores(tmp_path)


def test_an_empty_union_has_the_iou_that_is_asked_for():
    assert np.isnan(ious(np.array([0]), np.array([0]))).all()
    assert ious(np.array([0, 1]), np.array([0, 4]), empty=1.0).tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": "a"}',
        b'{"key": "a", "intersections": [1], "unions": [2, 3], "pixels": 10}',
        b'{"key": "a", "intersections": [NaN], "unions": [2], "pixels": 10}',
        b'{"key": ["a"], "intersections": [1], "unions": [2], "pixels": 10}',
        b"[1]",
        bytes(40),
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    MaskScores(tmp_path, config=1).add("b", overlaps((1, 2)))
    with open(tmp_path / "scores-0000.jsonl", "ab") as out:
        out.write(line + b"\n")
    with pytest.raises(ValueError, match=r"scores-0000\.jsonl line 2 is damaged: remove that line"):
        MaskScores(tmp_path, config=1)


def test_a_damaged_config_of_scores_is_named(tmp_path):
    MaskScores(tmp_path, config={"model": "m"})
    (tmp_path / "config.json").write_text('{"model')
    with pytest.raises(ValueError, match=r"config\.json is damaged .*use another folder"):
        MaskScores(tmp_path, config={"model": "m"})


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor, list])
def test_scores_of_any_float_type_stay_numbers(kind):
    scores = MaskScores()
    counts = MaskOverlaps(torch.tensor([1, 2]), torch.tensor([2, 2]), 4)
    scores.add("a", counts, chance=kind([0.25, 0.5]), is_plural=np.array([True, False]))
    assert scores.column("chance").tolist() == [0.25, 0.5]
    assert scores.column("is_plural").tolist() == [True, False]
    assert json.loads(json.dumps(scores.rows))["a"]["chance"] == [0.25, 0.5]

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clim_eval.metrics.accuracy import (
    best_ranks,
    class_accuracy_table,
    label_ranks,
    mean_class_accuracy,
    top_k_accuracy,
)


def rounds(case):
    return sorted(key.split("/")[1] for key in case.arrays if key.endswith("/labels"))


def slow_mean(correct, labels):
    per_class = {}
    for flag, label in zip(correct, labels, strict=True):
        per_class.setdefault(int(label), []).append(float(flag))
    return sum(sum(flags) / len(flags) for flags in per_class.values()) / len(per_class)


def test_golden_mean_class_accuracy_with_the_papers_rounding(golden):
    case = golden("case07_macc")
    assert rounds(case)
    for name in rounds(case):
        correct, labels = case.arrays[f"in/{name}/correct"], case.arrays[f"in/{name}/labels"]
        thing = case.arrays[f"in/{name}/is_thing"] > 0
        for group, rows in (("thing", thing), ("stuff", ~thing), ("det", np.ones_like(thing))):
            for k, flags in ((1, correct[:, 0]), (5, correct.sum(1))):
                value = mean_class_accuracy(flags[rows], labels[rows], rounding="fp16")
                assert value == pytest.approx(
                    float(case.arrays[f"out/{name}/{group}.macc{k}"]), abs=1e-9
                )


def test_golden_mean_class_accuracy_exact(golden):
    case = golden("case07_macc")
    for name in rounds(case):
        correct, labels = case.arrays[f"in/{name}/correct"], case.arrays[f"in/{name}/labels"]
        assert mean_class_accuracy(correct[:, 0], labels) == pytest.approx(
            slow_mean(correct[:, 0], labels), abs=1e-12
        )
        expected = case.meta["results"][name].get("unrounded.det.macc1")
        if expected is not None:
            assert mean_class_accuracy(correct[:, 0], labels) == pytest.approx(expected, abs=1e-7)


def test_golden_table_from_ranks(golden):
    """The table over ranks of the right class equals the one over correctness matrices."""
    case = golden("case07_macc")
    for name in rounds(case):
        correct = case.arrays[f"in/{name}/correct"]
        ranks = np.where(correct.any(1), correct.argmax(1), correct.shape[1])
        table = class_accuracy_table(
            ranks,
            case.arrays[f"in/{name}/labels"],
            case.arrays[f"in/{name}/is_thing"],
            rounding="fp16",
        )
        for group, original in (("thing", "thing"), ("stuff", "stuff"), ("all", "det")):
            for k in (1, 5):
                expected = float(case.arrays[f"out/{name}/{original}.macc{k}"])
                assert table[f"{group}.mAcc{k}"] == pytest.approx(expected, abs=1e-9)


def test_mean_class_accuracy_of_a_table_worked_by_hand():
    correct, labels = torch.tensor([1, 0, 0, 1, 1, 1]), torch.tensor([4, 4, 4, 9, 9, 2])
    assert mean_class_accuracy(correct, labels) == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert mean_class_accuracy(correct, labels, rounding="fp16") == pytest.approx(
        (0.333251953125 + 1 + 1) / 3
    )


def test_missing_groups_are_absent_and_no_rows_are_nan():
    assert set(class_accuracy_table([0, 3], [1, 2], [True, True])) == {
        "thing.mAcc1",
        "thing.mAcc5",
        "all.mAcc1",
        "all.mAcc5",
    }
    assert class_accuracy_table([], [], []) == {}
    assert math.isnan(mean_class_accuracy([], []))
    assert math.isnan(top_k_accuracy([])["top1"])


def test_ranks_equal_a_sort():
    scores, labels = torch.randn(50, 9), torch.randint(0, 9, (50,))
    order = scores.argsort(dim=1, descending=True)
    assert torch.equal(label_ranks(scores, labels), (order == labels[:, None]).int().argmax(1))


def test_ties_count_as_wrong_in_any_order():
    assert label_ranks(
        torch.tensor([[1.0, 1.0, 0.0]]).expand(3, 3), torch.tensor([0, 1, 2])
    ).tolist() == [1, 1, 2]


def test_broken_scores_and_labels_are_told():
    with pytest.raises(ValueError, match="NaN"):
        label_ranks(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="embed every class"):
        label_ranks(torch.zeros(1, 3), torch.tensor([3]))
    with pytest.raises(ValueError, match="one label per row"):
        label_ranks(torch.zeros(2, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="rounding"):
        mean_class_accuracy([1], [1], rounding="half")
    with pytest.raises(ValueError, match="one flag per label"):
        mean_class_accuracy([1, 0], [1])


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_best_ranks_equal_a_slow_search(chunk):
    queries, candidates = (
        F.normalize(torch.randn(11, 6), dim=1),
        F.normalize(torch.randn(17, 6), dim=1),
    )
    relevant = [sorted({i, (3 * i) % 17}) for i in range(11)]
    expected = []
    for query, right in zip(queries, relevant, strict=True):
        order = (candidates @ query).argsort(descending=True).tolist()
        first = min(order.index(i) for i in right)
        expected.append(sum(1 for i in order[:first] if i not in right))
    assert best_ranks(queries, candidates, relevant, chunk=chunk).tolist() == expected


def test_a_query_without_right_answer_is_told():
    with pytest.raises(ValueError, match="no right answer"):
        best_ranks(torch.eye(2), torch.eye(2), [[0], []])

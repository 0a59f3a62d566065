"""Distillation by cosine and the federated loss against slow, obvious versions and the original's
samples."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from clim_models.losses.distillation import cosine_distillation
from clim_models.losses.federated import federated_class_weights, federated_region_loss
from tolerance import float32_sum
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode


def unit_rows(n, channels=6, seed=0):
    return F.normalize(
        torch.randn(n, channels, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def keys(classes, seed=0):
    return torch.randint(0, 1 << 40, (classes,), generator=torch.Generator().manual_seed(seed))


def present(labels, classes):
    return torch.bincount(torch.as_tensor(labels, dtype=torch.int64), minlength=classes)


# -- cosine distillation -------------------------------------------------------------------------


def test_distillation_is_one_minus_the_mean_cosine_of_rows_of_any_length():
    student, teacher = 3 * unit_rows(4, seed=1), 0.5 * unit_rows(4, seed=2)
    cosines = [float(s @ t / (s.norm() * t.norm())) for s, t in zip(student, teacher, strict=True)]
    assert cosine_distillation(student, teacher).item() == pytest.approx(
        1 - sum(cosines) / 4, abs=float32_sum(student.numel())
    )
    assert cosine_distillation(student, 7 * student).item() == pytest.approx(
        0, abs=float32_sum(student.numel())
    )


def test_distillation_has_no_gradient_for_the_teacher():
    student, teacher = unit_rows(4, seed=1).requires_grad_(), unit_rows(4, seed=2).requires_grad_()
    cosine_distillation(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.norm() > 0


def test_distillation_runs_in_float32_under_autocast():
    student, teacher = unit_rows(4, seed=1), unit_rows(4, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cosine_distillation(student.bfloat16(), teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        cosine_distillation(student.bfloat16().float(), teacher).item(),
        abs=float32_sum(student.numel()),
    )


# -- classes that are asked about ----------------------------------------------------------------


def test_golden_samples_of_classes(golden):
    """Present classes are all there, as many classes as in the original, and on demand as many of
    them twice."""
    case = golden("case06_regionclip")
    for facts in case.meta["fed_cases"]:
        labels = case.tensor(f"in/fed/{facts['name']}/labels")
        theirs = case.tensor(f"out/fed/{facts['name']}/inds")
        classes, size = facts["C"], facts["num_sample_cats"]
        occurs = present(labels, classes)
        original = federated_class_weights(occurs, keys(classes), size, repeat_present=True)
        distinct = federated_class_weights(occurs, keys(classes), size)
        assert facts["appeared"] == int(occurs.bool().sum())
        assert original.sum() == facts["returned"] == len(theirs)
        assert (original.max() <= 1) == facts["all_distinct"]
        assert torch.equal(distinct, original.clamp(max=1))
        assert torch.equal(theirs[: facts["appeared"]], occurs.nonzero()[:, 0])
        assert distinct[occurs.bool()].eq(1).all()
        if facts["appeared"] >= size or size >= classes:  # nothing is left to chance
            assert torch.equal(
                distinct, torch.bincount(theirs, minlength=classes).clamp(max=1).float()
            )


def test_golden_random_part_is_uniform_over_absent_classes(golden):
    """As in the original's thousands of draws: every absent class equally often, present ones never
    by chance."""
    kind = r"random_part_counts_(\d+)_draws_of_(\d+)_from_(\d+)"
    meta = golden("case06_regionclip").meta
    (found,) = filter(None, (re.fullmatch(kind, key) for key in meta))
    draws, drawn, left = map(int, found.groups())
    counts = torch.tensor(meta[found[0]])
    absent = counts > 0
    size = int((~absent).sum()) + drawn
    assert (absent.sum(), counts.sum()) == (left, draws * drawn)
    ours = torch.zeros_like(counts)
    for seed in range(draws):
        ours += federated_class_weights(~absent, keys(len(counts), seed), size)
    assert torch.equal(ours[~absent], torch.full_like(ours[~absent], draws))
    share = drawn / left
    spread = (draws * share * (1 - share)) ** 0.5
    assert (ours[absent] - draws * share).abs().max() < 5 * spread


@pytest.mark.parametrize(("size", "asked"), [(None, 9), (9, 9), (20, 9), (5, 5), (2, 3), (1, 3)])
def test_present_classes_are_always_asked_about(size, asked):
    weights = federated_class_weights(present([1, 4, 4, 8], 9), keys(9), size)
    assert weights.sum() == asked
    assert weights.max() == 1
    assert weights[[1, 4, 8]].eq(1).all()


def test_batch_without_boxes_still_has_a_sample():
    assert federated_class_weights(present([], 6), keys(6), 2).sum() == 2
    assert (
        federated_class_weights(present([], 6), keys(6), 20, repeat_present=True).tolist()
        == [1] * 6
    )


def test_only_some_present_classes_count_twice_where_few_are_missing():
    weights = federated_class_weights(present([0, 1, 2, 3], 6), keys(6), 8, repeat_present=True)
    assert weights.sum() == 8
    assert weights[4:].tolist() == [1, 1]
    assert sorted(weights[:4].tolist()) == [1, 1, 2, 2]


def test_samples_follow_from_the_keys():
    occurs = present([3], 50)
    assert torch.equal(
        federated_class_weights(occurs, keys(50), 10), federated_class_weights(occurs, keys(50), 10)
    )
    other = federated_class_weights(occurs, keys(50, seed=1), 10)
    assert not torch.equal(federated_class_weights(occurs, keys(50), 10), other)


# -- federated loss ------------------------------------------------------------------------------


def slow_federated(features, embeddings, labels, temperature, weights):
    total = torch.zeros(())
    for x, label in zip(features, labels, strict=True):
        for k, e in enumerate(embeddings):
            p = torch.sigmoid(temperature * (x @ e))
            total = total - weights[k] * (p.log() if k == label else (1 - p).log())
    return total / len(features)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0, 2, 1, 0, 1, 1])])
def test_federated_loss_against_the_slow_version(weights):
    labels, temperature = torch.tensor([0, 2, 2, 6]), torch.tensor(4.0)
    fast, slow = (unit_rows(4).requires_grad_() for _ in range(2))
    embeddings = unit_rows(7, seed=3)
    loss = federated_region_loss(fast, embeddings, labels, temperature, class_weights=weights)
    expected = slow_federated(
        slow, embeddings, labels, temperature, torch.ones(7) if weights is None else weights
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad)


def test_federated_loss_runs_in_float32_under_autocast():
    labels = torch.tensor([0, 2, 2, 6])
    with torch.autocast("cpu", torch.bfloat16):
        loss = federated_region_loss(unit_rows(4), unit_rows(7, seed=3), labels, 100.0)
    torch.testing.assert_close(
        loss, federated_region_loss(unit_rows(4), unit_rows(7, seed=3), labels, 100.0)
    )


# -- both ----------------------------------------------------------------------------------------


def losses(kind, rows_of, features, **options):
    """The loss of some rows of a fixed batch of 7."""
    if kind == "cosine":
        return cosine_distillation(features, unit_rows(7, seed=5)[rows_of], **options)
    labels = torch.tensor([0, 3, 1, 1, 2, 4, 4])[rows_of]
    return federated_region_loss(features, unit_rows(5, seed=6), labels, 10.0, **options)


@pytest.mark.parametrize("kind", ["cosine", "federated"])
@pytest.mark.parametrize(
    "split", [(0, 5, 7), (0, 0, 7)], ids=["unequal ranks", "a rank without rows"]
)
def test_mean_over_ranks_with_their_share_of_rows_is_the_loss_of_all(kind, split):
    whole = unit_rows(7, seed=4).requires_grad_()
    expected = losses(kind, slice(None), whole)
    expected.backward()
    parts, total = unit_rows(7, seed=4).requires_grad_(), 0
    for start, stop in itertools.pairwise(split):
        mine = slice(start, stop)
        total = total + losses(kind, mine, parts[mine], rows=torch.tensor(7 / 2)) / 2
    total.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(parts.grad, whole.grad)


def test_no_loss_looks_at_values():
    """Fake tensors have none: whatever would make a GPU wait (`.item()`, `nonzero`, `unique`) fails
    on them."""
    with FakeTensorMode():
        features, embeddings = (torch.zeros(n, 6, requires_grad=True) for n in (4, 7))
        labels = torch.zeros(4, dtype=torch.int64)
        weights = federated_class_weights(torch.zeros(7), torch.zeros(7), 9, repeat_present=True)
        loss = federated_region_loss(
            features, embeddings, labels, torch.ones(()), class_weights=weights
        )
        loss = loss + cosine_distillation(features, features, rows=torch.ones(()))
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            loss.item()
    assert features.grad.shape == (4, 6)


@pytest.mark.parametrize("kind", ["cosine", "federated"])
def test_no_rows_give_zero_with_a_graph(kind):
    features = torch.zeros(0, 6, requires_grad=True)
    loss = losses(kind, slice(0, 0), features)
    loss.backward()
    assert loss.item() == 0
    assert features.grad.shape == (0, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cosine_distillation(unit_rows(3), unit_rows(2)),
            "one teacher row for each student row",
        ),
        (lambda: federated_class_weights(torch.ones(3), torch.ones(2)), "one of each per class"),
        (lambda: federated_class_weights(torch.ones(3), torch.ones(3), 0), "or None for all"),
        (
            lambda: federated_region_loss(
                unit_rows(3), unit_rows(4, 5), torch.zeros(3, dtype=int), 1.0
            ),
            "text tower of the same model",
        ),
        (
            lambda: federated_region_loss(
                unit_rows(3), unit_rows(4), torch.zeros(2, dtype=int), 1.0
            ),
            "one class index per region",
        ),
        (
            lambda: federated_region_loss(
                unit_rows(3),
                unit_rows(4),
                torch.zeros(3, dtype=int),
                1.0,
                class_weights=torch.ones(3),
            ),
            "one weight per class",
        ),
    ],
)
def test_wrong_shapes_are_refused_with_the_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()

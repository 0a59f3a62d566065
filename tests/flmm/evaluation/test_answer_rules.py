"""Answers against true ones by rules of strings."""

import pytest
from flmm.evaluation.answer_rules import rule_scores


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "contains", "f1"),
    [
        ("a dog", "The dog.", 1, 1, 1),
        (" Two dogs", "2 dogs", 1, 1, 1),
        ("It is a red dog", "red dog", 0, 1, 2 / 3),
        ("a redder dog", "red", 0, 0, 0),
        ("dog, red", "red dog", 0, 0, 1),
        ("No.", "no", 1, 1, 1),
        ("", "no", 0, 0, 0),
        ("$3.50", "3.50", 1, 1, 1),
        ("the", "a", 0, 0, 0),
        ("yes", "", 0, 0, 0),
    ],
)
def test_rules(answer, truth, exact, contains, f1):
    found = rule_scores(answer, truth)
    assert found == {"exact": exact, "contains": contains, "F1": pytest.approx(f1)}

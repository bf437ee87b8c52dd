"""Which answer counts, by hand."""

from dataclasses import replace

import pytest

from rsd_cli.evaluation.choosing import budgets, choices, choose
from tests.evaluation.made import sample_of

BRANCH = sample_of("best-of-n@2", "judged", 0, n=2).branches[0]


def branches(*given):
    return [replace(BRANCH, extracted=answer, score=score) for answer, score in given]


@pytest.mark.parametrize(
    ("given", "majority", "best", "weighted"),
    [
        ([("1", 0.2), ("2", 0.9), ("1", 0.3)], 0, 1, 1),
        ([("1", 0.5), ("2", 0.9), ("1", 0.5)], 0, 1, 0),
        ([("1", 0.5), ("2", 0.5)], 0, 0, 0),
        ([(None, 0.99), ("2", 0.1)], 1, 0, 1),
        ([("1", None), ("2", 0.0)], 0, 1, 0),
        ([("3", 0.4), ("0.5", 0.3), ("\\frac{1}{2}", 0.3)], 1, 0, 1),
    ],
)
def test_the_answer_that_counts(given, majority, best, weighted):
    made = branches(*given)
    assert choose(made, "majority") is made[majority]
    assert choose(made, "best") is made[best]
    assert choose(made, "weighted") is made[weighted]


def test_without_any_answer_none_is_voted_for():
    assert choose(branches((None, 0.5), (None, 0.7)), "majority") is None
    assert choose(branches((None, 0.5), (None, 0.7)), "weighted") is None
    assert choose([], "majority") is None


def test_budgets_double_up_to_n():
    assert [budgets(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_samples_are_looked_at_in_the_ways_that_they_allow():
    assert choices([sample_of("rsd", "rsd", 0)]) == ()
    assert choices([sample_of("majority@2", "draft", 0, n=2)]) == ("majority",)
    assert choices([sample_of("best-of-n@2", "judged", 0, n=2)]) == ("majority", "best", "weighted")
    assert choices([]) == ()

"""Figures that were worked out by hand."""

import math
import random

import pytest

from rsd_cli.evaluation.significance import mcnemar, paired, standard_error


@pytest.mark.parametrize(
    ("right", "n", "error"),
    [(8, 10, 0.4 / 3), (50, 100, 0.5 / math.sqrt(99)), (0, 10, 0.0), (1, 2, 0.5), (1, 1, None), (0, 0, None)],
)
def test_the_standard_error_is_that_of_a_mean(right, n, error):
    assert standard_error(right, n) == (None if error is None else pytest.approx(error))


def test_the_standard_error_is_the_samples_deviation_over_the_root():
    grades = [1] * 7 + [0] * 4
    mean = sum(grades) / 11
    deviation = math.sqrt(sum((grade - mean) ** 2 for grade in grades) / 10)
    assert standard_error(7, 11) == pytest.approx(deviation / math.sqrt(11))


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 x 1/2
        (5, 0, 2 / 32),
        (5, 1, 2 * (1 + 6) / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),  # 2 x 42/64 is above 1
        (10, 0, 2 / 1024),
    ],
)
def test_mcnemars_exact_p(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_many_discordant_pairs_are_counted_exactly():
    assert 0.9 < mcnemar(1500, 1500) <= 1
    assert mcnemar(0, 3000) == 0.0  # 2^-2999 is below what a float holds


def test_a_difference_counts_pairs():
    first, second = [True, True, False, False, True], [True, False, True, True, True]
    found = paired(first, second)
    assert (found.gained, found.lost, found.n) == (2, 1, 5)
    assert found.mean == pytest.approx(0.2)
    assert found.p == mcnemar(2, 1)


def test_the_interval_is_the_normal_one_where_many_questions_are():
    """1,000 questions of which 60 were gained and 40 lost: 0.02 with a standard error of about 0.01."""
    first = [False] * 60 + [True] * 40 + [True] * 900
    second = [True] * 60 + [False] * 40 + [True] * 900
    found = paired(first, second)
    error = math.sqrt((0.1 - 0.02**2) / 1000)
    assert found.low == pytest.approx(0.02 - 1.96 * error, abs=0.0015)
    assert found.high == pytest.approx(0.02 + 1.96 * error, abs=0.0015)


def test_equal_answers_differ_by_nothing():
    found = paired([True, False] * 9, [True, False] * 9)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_seed_decides():
    rng = random.Random(0)
    first, second = ([rng.random() < share for _ in range(1000)] for share in (0.5, 0.6))
    assert paired(first, second, seed=1) == paired(first, second, seed=1)
    assert len({paired(first, second, seed=seed) for seed in range(10)}) > 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = random.Random(0), 0
    for trial in range(200):
        pairs = [(rng.random() < 0.5, rng.random() < 0.6) for _ in range(80)]
        found = paired([a for a, _ in pairs], [b for _, b in pairs], seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [])])
def test_no_pairs_are_an_error(first, second):
    with pytest.raises(ValueError, match="make no pairs"):
        paired(first, second)

"""Acceptance: the five weighting functions, their draws, and the budget."""

import math
import random

import pytest

from rsd_cli.decoding.weighting import (
    REMEMBERED,
    WEIGHTINGS,
    Acceptance,
    Budget,
    Draws,
    binary,
    heeds_threshold,
    weight_of,
    within,
)
from rsd_cli.errors import UsageError


def never():
    raise AssertionError("nobody should draw")


@pytest.mark.parametrize(
    ("text", "reward", "omega"),
    [
        ("binary", 0.7, 1.0),
        ("binary", math.nextafter(0.7, 0), 0.0),
        ("binary:delta=0.2", 0.3, 1.0),
        ("constant", 0.0, 0.5),
        ("constant:p=0.25", 0.9, 0.25),
        ("clip", 0.3, 0.3),
        ("clip", -1.0, 0.0),
        ("clip", 7.0, 1.0),
        ("sigmoid", 1.0, 0.5),
        ("sigmoid", 0.25, 0.2),
        ("sigmoid", -1.0, 0.0),
        ("logistic", 0.7, 0.5),
        ("logistic:alpha=2,delta=0.5", 1.0, 1 / (1 + math.exp(-1))),
        ("logistic:delta=0.2", 0.3, 1 / (1 + math.exp(-1))),
        ("logistic:alpha=1e6", 0.0, 0.0),
        ("logistic:alpha=1e6", 1.0, 1.0),
    ],
)
def test_a_weighting_is_the_papers_formula(text, reward, omega):
    assert weight_of(text, 0.7)(reward) == pytest.approx(omega)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_weighting_grows_with_the_reward_within_its_bounds(name):
    omegas = [weight_of(name, 0.4)(reward / 50) for reward in range(51)]
    assert omegas == sorted(omegas)
    assert all(0 <= omega <= 1 for omega in omegas)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("binry", "binary, constant"),
        ("", "binary, constant"),
        ("clip:delta=1", "It has none"),
        ("logistic:beta=1", "alpha, delta"),
        ("logistic:alpha", "alpha=10"),
        ("logistic:alpha=nan", "alpha=10"),
        ("constant:p=1.5", "from 0 to 1"),
        ("constant:p=0.5,", "no parameter ''"),
    ],
)
def test_what_is_no_weighting_is_refused_with_what_there_is(text, word):
    with pytest.raises(UsageError) as caught:
        weight_of(text, 0.7)
    assert word in caught.value.message + caught.value.hint


def test_a_reward_of_nan_is_a_reject_under_every_weighting():
    for name in WEIGHTINGS:
        accepts = Acceptance(weight_of(name, 0.0), lambda: 0.0)
        assert not accepts(math.nan)
        assert accepts(1.0)


def test_zero_and_one_are_certain():
    draws = Draws("any")
    accepts = Acceptance(binary(0.5), draws)
    assert all(accepts(0.5) and not accepts(0.49) for _ in range(2_000))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_constant_accepts_about_its_share(p):
    n = 4_000
    accepted = sum(Acceptance(weight_of(f"constant:p={p}", 0), Draws(f"{i}"))(0.3) for i in range(n))
    assert abs(accepted / n - p) < 4 * math.sqrt(p * (1 - p) / n)
    one = Acceptance(weight_of(f"constant:p={p}", 0), Draws("one"))
    assert abs(sum(one(0.3) for _ in range(n)) / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_draws_depend_on_their_name_and_place_only():
    first, again, other = Draws("0/p/0"), Draws("0/p/0"), Draws("0/q/0")
    row = [first() for _ in range(50)]
    assert row == [again() for _ in range(50)]
    assert set(row).isdisjoint(other() for _ in range(50))
    assert all(0 <= x < 1 for x in row)


def test_a_decision_does_not_depend_on_how_certain_the_earlier_ones_were():
    by_half = weight_of("constant", 0)
    for i in range(20):
        unsure, sure = Acceptance(by_half, Draws(f"{i}")), Acceptance(binary(0.5), Draws(f"{i}"))
        unsure(0.3)
        sure(0.9)
        assert Acceptance(by_half, unsure.draw)(0.5) == Acceptance(by_half, sure.draw)(0.5)


REWARDS = {
    "uniform": lambda rng, _i: rng.random(),
    "three values": lambda rng, _i: rng.choice([0.1, 0.5, 0.9]),
    "all the same": lambda _rng, _i: 0.8,
    "falling": lambda rng, i: rng.random() - i / 500,
    "rising": lambda rng, i: rng.random() + i / 500,
    "some are none": lambda rng, _i: math.nan if rng.random() < 0.05 else rng.random(),
}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("form", REWARDS)
def test_a_budget_is_kept_for_rewards_of_any_form(form, share):
    for seed in range(5):
        rng, budget = random.Random(seed), Budget(share)
        accepts = within(budget, Draws(f"{seed}"))
        n = 1_000
        rewritten = sum(not accepts(REWARDS[form](rng, i)) for i in range(n))
        assert rewritten == budget.rewritten
        none = 0.05 if form == "some are none" else 0.0  # these are rewritten, whatever that costs
        assert abs(rewritten / n - max(share, none)) < 0.03


def test_a_budget_is_spent_on_the_lowest_rewards():
    rng, accepts = random.Random(1), within(Budget(0.3), Draws("x"))
    fared = [(reward := rng.random(), accepts(reward)) for _ in range(1_000)][200:]
    low = [accepted for reward, accepted in fared if reward < 0.2]
    high = [accepted for reward, accepted in fared if reward > 0.4]
    assert sum(low) / len(low) < 0.1
    assert sum(high) / len(high) > 0.9


def test_a_budget_of_one_problem_holds_over_many_problems():
    """A few steps have no quantile; over problems the share is right all the same."""
    rng, rewritten, steps = random.Random(2), 0, 0
    for problem in range(300):
        accepts = within(Budget(0.25), Draws(f"{problem}"))
        hard = rng.random()
        for _ in range(rng.randrange(1, 8)):
            steps += 1
            rewritten += not accepts(hard * rng.random())
    assert abs(rewritten / steps - 0.25) < 0.04


def test_what_a_budget_remembers_is_bounded():
    budget, rng = Budget(0.5), random.Random(3)
    accepts = within(budget, Draws("x"))
    for i in range(3 * REMEMBERED):
        accepts(rng.random() + (i // REMEMBERED))
    assert len(budget._sorted) == len(budget._row) == REMEMBERED
    assert budget._sorted == sorted(budget._row)
    assert min(budget._sorted) >= 2


@pytest.mark.parametrize(
    "text",
    ["binary", "binary:delta=0.5", "constant", "clip", "sigmoid", "logistic:alpha=3", "logistic:delta=0.5"],
)
def test_a_threshold_is_heeded_where_it_changes_something(text):
    changes = any(weight_of(text, 0.2)(i / 50) != weight_of(text, 0.7)(i / 50) for i in range(51))
    assert heeds_threshold(text) == changes

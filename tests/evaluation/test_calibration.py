"""What thresholds would do: arithmetic by hand."""

import math

import pytest

from rsd_cli.evaluation.calibration import (
    Costs,
    Graded,
    JudgedStep,
    Measured,
    above_chord,
    curve,
    point_at,
    rounded,
    threshold_for,
)

STEPS = [JudgedStep(0.1, 10), JudgedStep(0.5, 30), JudgedStep(0.9, 60)]
COSTS = Costs(draft=1, target=4)


@pytest.mark.parametrize(
    ("threshold", "share"), [(0.0, 0), (0.1, 0), (0.2, 0.1), (0.5, 0.1), (0.6, 0.4), (1, 1)]
)
def test_a_threshold_gives_the_target_what_lies_below_it(threshold, share):
    point = point_at(STEPS, COSTS, threshold)
    assert point.target_share == pytest.approx(share)
    assert point.compute == pytest.approx(0.25 + share)


def test_a_step_without_reward_is_the_targets_at_every_threshold():
    steps = [*STEPS, JudgedStep(math.nan, 100)]
    assert point_at(steps, COSTS, 0.0).target_share == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.5, 0.7, 1])
def test_what_has_no_reward_is_a_part_of_the_wanted_share(share):
    steps = [*STEPS, JudgedStep(math.nan, 100)]
    assert point_at(steps, COSTS, threshold_for(steps, share)).target_share == pytest.approx(share)
    assert threshold_for(steps, 0.2) == threshold_for(steps, 0.5) == 0.1


@pytest.mark.parametrize("share", [0, 0.1, 0.4, 1])
def test_the_threshold_for_a_share_gives_that_share(share):
    assert point_at(STEPS, COSTS, threshold_for(STEPS, share)).target_share == pytest.approx(share)


ROUNDED = {
    0.375: 0.375,
    0.123456789: 0.123456,
    7 / 9: 0.777777,
    0.9996: 0.9996,
    0.0004: 0.0004,
    0.999998: 0.999998,
    1 - 1.23456789e-9: 0.99999999876543,
    1.23456789e-9: 1.23456e-9,
    0.0: 0.0,
    1.0: 1.0,
}


@pytest.mark.parametrize("reward", ROUNDED)
def test_a_rounded_threshold_keeps_its_meaning(reward):
    assert rounded(reward) == pytest.approx(ROUNDED[reward], rel=1e-15, abs=0)
    assert rounded(reward) <= reward
    assert (rounded(reward) in {0, 1}) == (reward in {0, 1})
    steps = [JudgedStep(reward, 90), JudgedStep(0.0, 10)]
    assert point_at(steps, COSTS, threshold_for(steps, 0.1)).target_share == (0.1 if reward else 0)


def test_the_curve_rises_from_nothing():
    shares = [point.target_share for point in curve(STEPS, COSTS)]
    assert (shares[0], shares) == (0, sorted(shares))


def test_the_chord_is_what_accepting_at_random_gives():
    draft = Measured(0, tuple(Graded(i < 2, 0, 10) for i in range(10)))
    target = Measured(1, tuple(Graded(i < 8, 10, 10) for i in range(10)))
    half = Measured(0.5, tuple(Graded(i < 8, 5, 10) for i in range(10)))
    gain = above_chord(half, draft, target)
    assert gain.mean == pytest.approx(0.8 - 0.5)
    assert gain.low < gain.mean < gain.high
    assert above_chord(target, draft, target).mean == pytest.approx(0)
    assert above_chord(draft, draft, target).mean == pytest.approx(0)
    assert (half.accuracy, half.target_share) == (0.8, 0.5)

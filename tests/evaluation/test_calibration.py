"""What thresholds would do: arithmetic by hand."""

import math

import pytest

from rsd_cli.evaluation.calibration import (
    Costs,
    Gain,
    Graded,
    JudgedStep,
    Measured,
    Shares,
    above_chord,
    curve,
    point_at,
    recommend,
    rounded,
    shares_at,
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


def test_what_is_read_counts_but_for_what_nobody_writes_behind():
    two = [
        *STEPS,
        *(JudgedStep(reward, tokens, answer=1) for reward, tokens in ((0.9, 20), (0.3, 30), (0.7, 50))),
    ]
    assert shares_at(two, 0.0) == Shares(0, 0, 0)
    assert shares_at(two, 0.4) == Shares(0.2, 0.1, 0.2)  # 10 + 30 of 200 written, before them 20 read
    assert shares_at(two, 1.0) == Shares(1, 0, 0.45)  # of both ends nobody reads anything
    assert point_at(two, Costs(draft=1, target=4, prm=2), 0.4).compute == pytest.approx(
        3 / 4 * 1.2 + 0.2 + 0.1
    )
    assert point_at(two, COSTS, 0.0).compute == 0.25


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


def gained(*gains):
    run = Measured(0.5, (Graded(True, 5, 10),))
    return [
        (run, None),
        *((Measured(i / 10, run.answers), gain) for i, gain in enumerate(gains, 1)),
        (run, None),
    ]


@pytest.mark.parametrize(
    ("gains", "threshold", "reason"),
    [
        (
            [Gain(-0.021, -0.06, 0.023), Gain(-0.006, -0.05, 0.04)],
            0.2,
            "0.6 points below the chord, the best of those measured; none is measurably better than sending whole "
            "questions to the target at random",
        ),
        (
            [Gain(0.1, 0.02, 0.2), Gain(0.05, -0.1, 0.2)],
            0.1,
            "10.0 points above the chord, the best of those measured",
        ),
    ],
)
def test_the_best_of_those_measured_is_named_and_whether_it_is_any_good(gains, threshold, reason):
    assert recommend(STEPS, gained(*gains), None) == (threshold, reason)
    assert recommend(STEPS, gained(*gains), 0.4)[0] == threshold_for(STEPS, 0.4)


def test_a_gain_that_may_be_none_is_none():
    assert "none is measurably better" in recommend(STEPS, gained(Gain(0.018, -0.008, 0.043)), None)[1]


@pytest.mark.parametrize(("share", "comes_to"), [(0.4, 40), (0.3, 40), (0.05, 10), (0.5, 100)])
def test_the_share_that_a_threshold_comes_to_is_told_beside_the_wanted_one(share, comes_to):
    threshold, reason = recommend(STEPS, (), share)
    assert reason == f"the target writes an estimated {comes_to}% of the tokens, {share:.0%} being wanted"
    assert shares_at(STEPS, threshold).written == pytest.approx(comes_to / 100)


def test_without_a_wanted_share_a_budget_is_aimed_at():
    assert recommend(STEPS, (), None)[1].endswith("% being wanted; --sweep measures accuracy")

"""Counts and shares by hand, on a clock that is turned by hand."""

import json
from dataclasses import replace

import pytest

from rsd_cli.batch.answers import Answered
from rsd_cli.batch.tally import Tally, Window
from rsd_cli.records import Candidate, Flops, ModelId, Rejected, Role, RoleTime, Usage
from tests.batch.made import REWRITTEN, Clock, a_record, a_row, a_step, answered, failed


@pytest.fixture
def clock():
    return Clock(1_000.0)


def test_rows_are_counted_by_how_they_went(clock):
    tally = Tally(clock, total=10, skipped=2)
    assert tally.left == 8
    for outcome in (answered("1"), answered(None), failed(), failed("q2"), answered("1", None)):
        tally.add(outcome)
    assert (tally.answered, tally.failed, tally.left) == (3, 2, 3)
    assert tally.unanswered == 1
    assert tally.errors == {"context_overflow": 2}
    assert tally.summary()["rows"] == {"answered": 3, "failed": 2, "skipped": 2, "left": 3}


def test_rows_that_were_done_before_count_for_all_but_what_the_run_took(clock):
    earlier, whole = Tally(clock, total=4, grade=_is_72), Tally(clock, total=4, grade=_is_72)
    outcomes = (answered("72", gold="72"), answered("7", gold="72"), failed("q3"))
    for outcome in outcomes:
        earlier.skip(outcome, failed=outcome == outcomes[2])
        whole.add(outcome)
    clock.now += 10
    assert earlier.summary()["rows"] == {"answered": 0, "failed": 0, "skipped": 3, "left": 1}
    assert (earlier.summary()["failed_before"], whole.summary()["failed_before"]) == (1, 0)
    own = {"rows", "failed_before", "time", "verdict", "rows_per_second", "tokens_per_second"}
    kept = [{key: value for key, value in t.summary().items() if key not in own} for t in (earlier, whole)]
    assert kept[0] == kept[1]
    assert (kept[0]["counted"], kept[0]["right"], kept[0]["errors"]) == (2, 1, {"context_overflow": 1})
    assert (earlier.summary()["time"], earlier.summary()["tokens_per_second"]) == ({}, 0)


def _is_72(text, gold, _ended_by):
    return gold in text


def test_nothing_is_left_below_zero_and_nothing_is_known_without_a_total(clock):
    tally = Tally(clock, total=1)
    tally.add(failed())
    tally.add(answered())
    assert tally.left == 0
    endless = Tally(clock)
    endless.add(answered())
    assert endless.left is endless.seconds_left() is None


@pytest.mark.parametrize("ended_by", ["max_tokens", "max_steps", "context", "timeout"])
def test_rows_with_answers_that_were_cut_short_or_are_empty_are_counted_once(ended_by, clock):
    tally = Tally(clock)
    short = a_record(None, ended_by=ended_by, answer=" \n")
    for samples in ((short, a_record(), short), (a_record(), a_record()), (short,)):
        tally.add(Answered(a_row(), samples))
    assert (tally.truncated, tally.empty) == (2, 2)


def test_shares_are_of_steps_tokens_and_verdicts(clock):
    tally = Tally(clock)
    tally.add(Answered(a_row(), (a_record(steps=(a_step(), a_step(reward=0.6), REWRITTEN)),)))
    summary = tally.summary()
    assert summary["acceptance"] == pytest.approx(2 / 3)
    assert summary["target_share_of_steps"] == pytest.approx(1 / 3)
    assert summary["target_share_of_tokens"] == pytest.approx(15 / 25)
    assert summary["mean_reward"] == pytest.approx((0.9 + 0.6 + 0.3) / 3)


@pytest.mark.parametrize(("strategy", "n"), [("rsd", 2), ("keep-better", 2), ("judge", 0)])
def test_steps_that_the_prm_gave_no_reward_are_counted(strategy, n, clock):
    tally = Tally(clock)
    unrewarded = replace(REWRITTEN, rejected=Rejected("Wrong.\n\n", None, 4))
    steps = (a_step(), unrewarded, REWRITTEN, unrewarded)
    tally.add(Answered(a_row(), (a_record(steps=steps, strategy=strategy),)))
    assert tally.summary()["steps_without_reward"] == n


def test_steps_that_nobody_judged_have_no_acceptance(clock):
    tally = Tally(clock)
    tally.add(Answered(a_row(), (a_record(steps=(a_step(author="target", reward=None),)),)))
    summary = tally.summary()
    assert summary["acceptance"] is summary["mean_reward"] is None
    assert summary["target_share_of_steps"] == 1


@pytest.mark.parametrize("strategy", ["best-of-n", "process-best-of-n@2", "beam", "glimpse:target", "audit"])
def test_where_nothing_is_rejected_nothing_was_accepted(strategy, clock):
    tally = Tally(clock)
    tally.add(Answered(a_row(), (a_record(steps=(a_step(), a_step()), strategy=strategy),)))
    summary = tally.summary()
    assert summary["acceptance"] is None
    assert summary["mean_reward"] == pytest.approx(0.9)


def test_a_step_that_stays_against_the_criterion_was_not_accepted(clock):
    tally = Tally(clock)
    stayed = a_step(reward=0.5, others=(Candidate("t", "target", 0.4, 20),))
    steps = (a_step(), stayed, REWRITTEN)
    tally.add(Answered(a_row(), (a_record(steps=steps, strategy="keep-better"),)))
    assert tally.summary()["acceptance"] == pytest.approx(1 / 3)


def test_tokens_times_and_compute_add_up_over_samples(clock):
    tally = Tally(clock)
    tally.add(answered("1", "1"))
    tally.add(
        Answered(
            a_row(), (a_record(flops=Flops(1e9, 0.0, 0.0, None), usage={"draft": Usage(1, 1, 1, 1, 1)}),)
        )
    )
    assert tally.usage["draft"] == Usage(141, 19, 9, 181, 1)
    assert tally.usage["target"] == Usage(156, 30, 0, 166, 0)
    assert tally.times["draft"] == RoleTime(300, 600)
    summary = tally.summary()
    assert summary["flops"] == {"draft": 3e9, "target": 4e9, "prm": 2e9, "target_only": 16e9, "total": 9e9}
    assert summary["compute_vs_target_only"] == pytest.approx(8 / 16), "of the answers where that is known"


def test_speeds_are_those_of_the_last_minute(clock):
    tally = Tally(clock, total=100)
    for _ in range(5):
        tally.count_token()
    tally.add(answered())
    assert tally.rates() == (1.0, 5.0)
    clock.now += 10
    assert tally.rates() == (0.1, 0.5)
    clock.now += 49
    tally.count_token()
    assert tally.rates() == pytest.approx((1 / 59, 6 / 59))
    clock.now += 31
    assert tally.rates() == pytest.approx((0.0, 1 / 60))
    clock.now += 60
    assert tally.rates() == (0.0, 0.0)


def test_a_window_holds_a_bucket_a_second():
    window = Window()
    for tenth in range(5_000):
        window.add(tenth / 10, 1, 3)
    assert len(window.buckets) <= 61
    rows, tokens = window.rates(499.9, 0.0)
    assert rows == pytest.approx(10, rel=0.02)
    assert tokens == pytest.approx(30, rel=0.02)


def test_the_time_left_follows_from_the_rows_so_far(clock):
    tally = Tally(clock, total=10, skipped=4)
    assert tally.seconds_left() is None
    clock.now += 20
    assert tally.seconds_left() is None
    tally.add(answered())
    tally.add(failed())
    assert tally.seconds_left() == pytest.approx(4 * 20 / 2)
    clock.now += 20
    assert tally.seconds_left() == pytest.approx(4 * 40 / 2)
    for _ in range(4):
        tally.add(answered())
    assert tally.seconds_left() == 0


def test_a_summary_is_json(clock):
    tally = Tally(clock, total=3)
    json.dumps(tally.summary(), allow_nan=False)
    clock.now += 4
    tally.add(answered("72", gold="#### 72"))
    tally.add(failed())
    summary = json.loads(json.dumps(tally.summary(), allow_nan=False))
    assert (summary["rows_per_second"], summary["tokens_per_second"], summary["seconds"]) == (0.5, 5.0, 4.0)
    assert summary["time"]["draft"] == {"prompt_ms": 100, "decode_ms": 200}
    assert summary["tokens"]["target"]["generated"] == 15
    assert summary["errors"] == {"context_overflow": 1}


@pytest.mark.parametrize(
    ("gold", "finals", "right"),
    [
        ("48/2 = 24\n48+24 = 72\n#### 72", ["72"], 1),
        ("#### 72", ["72.0"], 1),
        ("72", ["72"], 1),
        ("#### 1,072", ["1072"], 1),
        ("#### 72", ["27"], 0),
        ("#### 72", [None], 0),
        ("#### 72", ["72", "1", "72"], 1),
        ("#### 72", ["72", "1", "1"], 0),
        ("#### 72", [None, None], 0),
        ("#### 0.5", ["\\frac{1}{2}", "0.5", "3"], 1),
    ],
)
def test_answers_are_graded_by_a_known_one(gold, finals, right, clock):
    tally = Tally(clock)
    tally.add(answered(*finals, gold=gold))
    assert (tally.graded, tally.right) == (1, right)


def test_a_single_answer_without_a_box_is_graded_by_its_last_number(clock):
    tally = Tally(clock)
    record = replace(a_record(None), answer="First 24, then 72 clips.")
    tally.add(Answered(a_row(gold="#### 72"), (record,)))
    assert (tally.right, tally.unanswered) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("So 5 + 7 = 12", 0), (r"It is \boxed{12}, as", 1), (r"<think>\boxed{12}", 0), ("<think>5 + 7 = 12", 0)],
)
def test_the_last_number_of_an_answer_that_was_cut_short_is_no_answer(answer, right, clock):
    tally = Tally(clock)
    record = replace(a_record(None), answer=answer, ended_by="max_tokens")
    tally.add(Answered(a_row(gold="12"), (record,)))
    assert (tally.graded, tally.right) == (1, right)


def test_rows_without_a_known_answer_are_not_graded(clock):
    tally = Tally(clock)
    tally.add(answered("72"))
    assert tally.graded == 0


def test_rows_whose_known_answer_cannot_be_compared_are_counted_apart(clock):
    tally = Tally(clock, grade=lambda text, gold, _ended: None if gold == "x^2" else "72" in text)
    for gold in ("x^2", "#### 72", "72"):
        tally.add(answered("72", gold=gold))
    tally.add(answered("1", "72", "72", gold="72"))
    assert (tally.graded, tally.ungraded, tally.right) == (3, 1, 3)
    assert tally.summary()["not_graded"] == 1


def test_a_verdict_compares_with_the_target_alone(clock):
    """The answers of `made` come from a target of 10 parameters that writes 78 prompt and the rest text tokens."""
    tally = Tally(clock)
    assert tally.verdict() is tally.summary()["verdict"] is None
    sizes: dict[Role, int] = {"draft": 10, "target": 100, "prm": 10}
    models = {role: ModelId(role, None, size) for role, size in sizes.items()}
    flops = Flops(1.0, 1.0, 1.0, 2.0 * 100 * (78 + 500))
    record = a_record(models=models, flops=flops)
    tally.add(Answered(a_row(), (record, record)))
    verdict = tally.verdict()
    assert verdict is not None
    own = 10 * (90 + 9) + 100 * (83 + 15) + 10 * 95
    assert verdict.compute.predicted == pytest.approx(own / (100 * (78 + 500)))
    assert verdict.acceptance == pytest.approx(1 - 4 / 9)
    summary = json.loads(json.dumps(tally.summary(), allow_nan=False))
    assert summary["verdict"]["sentences"] == list(verdict.sentences)


def test_where_the_target_wrote_nothing_there_is_no_speed_to_compare(clock):
    tally = Tally(clock)
    sizes: dict[Role, int] = {"draft": 10, "target": 100}
    models = {role: ModelId(role, None, size) for role, size in sizes.items()}
    usage: dict[Role, Usage] = {"draft": Usage(70, 90, 0, 70), "target": Usage()}
    tally.add(Answered(a_row(), (a_record(models=models, usage=usage, steps=(a_step(),)),)))
    verdict = tally.verdict()
    assert verdict is not None
    assert verdict.time is None

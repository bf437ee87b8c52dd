"""What differs between two runs, counted by hand."""

from dataclasses import replace

import pytest

from rsd_cli.evaluation.accounts import StrategyRun
from rsd_cli.evaluation.comparing import Setting, compare
from rsd_cli.evaluation.runs import Evaluation, TaskRun
from tests.evaluation.made import circumstances, evaluation_of, runs_of

FIRST = evaluation_of(20, ("rsd", "target"))


def test_a_run_equals_itself():
    found = compare(FIRST, FIRST)
    assert (found.settings, found.only_first, found.only_second) == ((), (), ())
    assert [pair.first for pair in found.pairs] == ["rsd", "target"]
    for pair in found.pairs:
        assert pair.difference is not None
        assert (pair.difference.mean, pair.difference.p, pair.compute, pair.seconds) == (0, 1, 1, 1)
        assert pair.flips == ()


def test_flips_are_counted_in_both_directions():
    second = evaluation_of(20, ("rsd", "target"), seed=1)
    (pair, _) = compare(FIRST, second).pairs
    before, after = FIRST.tasks[0].strategies[0].samples, second.tasks[0].strategies[0].samples
    gained = [two.doc_id for one, two in zip(before, after, strict=True) if two.right and not one.right]
    lost = [two.doc_id for one, two in zip(before, after, strict=True) if one.right and not two.right]
    assert gained
    assert lost
    assert [flip.doc_id for flip in pair.flips if flip.gained] == gained
    assert [flip.doc_id for flip in pair.flips if not flip.gained] == lost
    assert pair.difference is not None
    assert pair.difference.mean == pytest.approx((len(gained) - len(lost)) / 20)
    assert pair.flips[0].question.startswith("Natalia sold")


def test_only_the_same_questions_are_compared():
    run = FIRST.tasks[0].strategies[0]
    changed = replace(run.samples[0], doc={"question": "Another?"})
    other = StrategyRun("rsd", (changed, *run.samples[1:10]))
    second = Evaluation((TaskRun("gsm8k", (other, FIRST.tasks[0].strategies[1])),), FIRST.circumstances)
    (pair, _) = compare(FIRST, second).pairs
    assert pair.difference is not None
    assert (pair.first_n, pair.second_n, pair.difference.n) == (20, 10, 9)
    strange = Evaluation((TaskRun("gsm8k", (StrategyRun("rsd", (changed,)),)),), FIRST.circumstances)
    (pair,) = compare(FIRST, strange).pairs
    assert (pair.difference, pair.compute) == (None, None)


def test_settings_that_differ_are_named_but_not_the_time():
    other = circumstances(config={"threshold": 0.9, "parallel": 8, "gpu": True}, seeds={"seed": 1})
    found = compare(FIRST, replace(FIRST, circumstances=other))
    assert set(found.settings) == {
        Setting("config.threshold", "0.7", "0.9"),
        Setting("config.gpu", "-", "True"),
        Setting("seeds.seed", "0", "1"),
    }


def test_a_strategys_settings_are_compared_where_both_runs_know_them():
    def having(**strategies):
        return replace(FIRST, circumstances=circumstances(config={"strategies": {"gsm8k": strategies}}))

    first, second = (
        having(rsd={"threshold": 0.4, "beta": 1.0}, draft={"beta": 1.0}),
        having(rsd={"threshold": 0.6}),
    )
    found = compare(first, second)
    assert found.settings == (Setting("config.strategies.gsm8k.rsd.threshold", "0.4", "0.6"),)
    older = replace(FIRST, circumstances=circumstances(config={}))
    assert compare(older, second).settings == compare(second, older).settings == ()


def test_what_has_no_partner_is_named():
    second = Evaluation(
        (TaskRun("gsm8k", runs_of(20, ("target", "draft"))), TaskRun("math500", runs_of(2, ("rsd",)))),
        circumstances(),
    )
    found = compare(FIRST, second)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("target", "target")]
    assert found.only_first == ("gsm8k rsd",)
    assert found.only_second == ("gsm8k draft", "math500 rsd")


def test_single_strategies_are_compared_whatever_their_names():
    first, second = (evaluation_of(10, (name,)) for name in ("rsd", "target"))
    (pair,) = compare(first, second).pairs
    assert (pair.first, pair.second) == ("rsd", "target")
    assert pair.difference is not None


def test_costs_are_compared_over_what_both_answered():
    rsd, target = FIRST.tasks[0].strategies
    failed = replace(
        rsd.samples[0], branches=(), right=False, extracted=None, outcome="error", error="too long"
    )
    other = Evaluation(
        (TaskRun("gsm8k", (replace(rsd, samples=(failed, *rsd.samples[1:])), target)),), FIRST.circumstances
    )
    for pair in (compare(FIRST, other).pairs[0], compare(other, FIRST).pairs[0]):
        assert (pair.compute, pair.seconds) == (1, 1)
        assert pair.difference is not None
        assert pair.difference.n == 20
        assert [flip.question for flip in pair.flips] == [rsd.samples[0].doc["question"]] * rsd.samples[
            0
        ].right

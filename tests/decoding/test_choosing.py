"""Which of several answers is delivered, for any first answers of a row."""

import math
from dataclasses import replace

import pytest

from rsd_cli.decoding.choosing import Majority, best, chosen, majority, score
from rsd_cli.records import Flops, Record, Step, Timings


def record(final, rewards=(), strategy="majority@4", **settings):
    steps = tuple(Step("a\n\n", "draft", reward, 2, 1.0) for reward in rewards)
    return Record(
        "p", "What?", f"It is {final}.", final, steps, {}, Flops(0, 0, 0, None), Timings(0, None, 0), "eog",
        strategy, settings, {}, {}, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "most"),
    [
        ([], None),
        ([None], None),
        (["a"], Majority("a", 1, 1, 0)),
        (["a", "b"], Majority("a", 1, 2, 0)),
        (["a", "b", "b"], Majority("b", 2, 3, 1)),
        ([None, "b", None], Majority("b", 1, 3, 1)),
        (["1,000", "2", "1000 dollars"], Majority("1,000", 2, 3, 0)),
        (["xy", "yx"], Majority("xy", 1, 2, 0)),
        (["", "", "a"], Majority("a", 1, 3, 2)),
        (["", ""], None),
    ],
)
def test_equal_answers_vote_together(answers, most):
    assert majority(answers) == most


def test_most_votes_win_and_numbers_that_are_equal_vote_together():
    finals = ["1/2", "0.5", None, "3", r"\frac{1}{2}", "3"]
    assert majority(finals) == Majority("1/2", votes=3, of=6, place=0)
    for n in range(1, 7):
        assert majority(finals[:n]) == Majority(
            "1/2", sum(x in ("1/2", "0.5", finals[4]) for x in finals[:n]), n, 0
        )
    assert majority([None, "2", "3", "3", "2"]) == Majority("2", votes=2, of=5, place=1)


@pytest.mark.parametrize(("how", "place"), [("last", 0), ("min", 1), ("product", 2), ("mean", 1)])
def test_the_prms_favourite_depends_on_the_aggregate(how, place):
    records = [record("1", [0.1, 0.95]), record("2", [0.8, 0.85]), record("3", [0.75]), record("4", [])]
    assert best(records, how) == place
    assert math.isnan(score(records[3], how))


def test_an_answer_with_a_step_that_has_no_reward_is_no_favourite():
    records = [record("1", [0.9, None]), record("2", [0.1, 0.1])]
    assert [best(records, how) for how in ("last", "min", "product", "mean")] == [1, 1, 1, 1]
    assert best([records[0]], "last") == 0


def test_the_strategy_of_the_samples_says_who_chooses():
    rows = [record("1", [0.9]), record("2", [0.5]), record("2", [0.6])]
    assert chosen(rows) == 1
    by_prm = [replace(row, strategy="best-of-n@3", settings={"aggregate": "min"}) for row in rows]
    assert chosen(by_prm) == 0
    assert chosen([replace(row, final_answer=None) for row in rows]) == 0
    assert chosen([record(""), record(""), record("72")]) == 2

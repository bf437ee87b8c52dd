"""What a strategy takes from another one's draws: the first answers, chosen anew, at the cost of drawing them."""

import math

import pytest

from rsd_cli.decoding.strategies import parse
from rsd_cli.engine.sampling import Sampling
from rsd_cli.evaluation.choosing import choose
from rsd_cli.evaluation.sharing import can_give, shared
from tests.evaluation.made import sample_of

GIVEN = [sample_of("best-of-n@8", "judged", i, n=8) for i in range(20)]


@pytest.mark.parametrize(
    ("giver", "taker", "can"),
    [
        ("best-of-n@8", "majority@8", True),
        ("best-of-n@8", "majority@4", True),
        ("best-of-n@8", "best-of-n@2", True),
        ("majority@8", "majority@4", True),
        ("majority@8", "best-of-n@8", False),
        ("best-of-n@4", "majority@8", False),
        ("best-of-n@8:target", "majority@8", False),
        ("best-of-n@8:target", "majority@8:target", True),
        ("beam@8", "majority@8", False),
        ("best-of-n@8", "draft", False),
    ],
)
def test_who_can_give_to_whom(giver, taker, can):
    assert can_give(parse(giver), parse(taker), Sampling(0.7)) is can


@pytest.mark.parametrize(
    ("giver", "taker", "can"),
    [
        ("best-of-n@8", "majority@4", False),
        ("best-of-n@8", "best-of-n@4", True),
        ("majority@8", "majority@4", True),
    ],
)
def test_what_is_drawn_from_fewer_tokens_is_not_given_to_who_would_draw_from_all(giver, taker, can):
    assert can_give(parse(giver), parse(taker), Sampling(0.7, top_k=0)) is can


@pytest.mark.parametrize("given", GIVEN, ids=range(20))
def test_a_majority_votes_on_the_first_answers_and_pays_no_prm(given):
    taken = shared(given, "majority@4/x=1", parse("majority@4"))
    assert taken.strategy == "majority@4/x=1"
    assert [branch.extracted for branch in taken.branches] == [b.extracted for b in given.branches[:4]]
    chosen = choose(given.branches[:4], "majority") or given.branches[0]
    assert (taken.right, taken.extracted, taken.outcome) == (chosen.right, chosen.extracted, chosen.outcome)
    for own, record in zip(taken.records, given.records, strict=False):
        assert (own.answer, own.strategy) == (record.answer, "majority@4")
        assert record.flops.prm > 0
        assert own.flops.total == record.flops.total - record.flops.prm
        assert own.usage["prm"].decoded == 0
        assert own.usage["draft"] == record.usage["draft"]
        assert all(step.reward is None for step in own.steps)


@pytest.mark.parametrize("given", GIVEN, ids=range(20))
def test_fewer_of_the_judged_answers_are_judged_as_well(given):
    taken = shared(given, "best-of-n@2", parse("best-of-n@2"))
    best = max(
        (branch for branch in given.branches[:2] if branch.extracted is not None),
        key=lambda branch: -math.inf if branch.score is None else branch.score,
        default=given.branches[0],
    )
    assert taken.extracted == best.extracted
    assert taken.records[0].flops == given.records[0].flops


def test_a_question_that_nobody_could_answer_stays_unanswered():
    none = shared(
        GIVEN[0].__class__("best-of-n@8", 3, {}, "7", (), False, None, "empty"), "m", parse("majority@8")
    )
    assert (none.strategy, none.doc_id, none.branches, none.outcome) == ("m", 3, (), "empty")

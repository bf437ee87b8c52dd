"""Policies, fed by hand: who is asked for what, in which order."""

import math

import pytest

from rsd_cli.decoding.policies import Judge, Keep, Proposal, Write, alone, audit, rsd
from rsd_cli.decoding.weighting import binary
from rsd_cli.records import Candidate, Rejected


def threshold(delta):
    """The binary step as a criterion; it never draws."""
    return lambda reward: binary(delta)(reward) == 1


def proposal(author, text="1 + 1 = 2.\n\n", ids=(1, 2, 3)):
    return Proposal(author, text, tuple(ids), "separator", -0.5, 10.0)


DRAFT, TARGET = proposal("draft"), proposal("target", "1 + 1 is 2.\n\n", (4, 5))


def one_step(reward, delta=0.7):
    """What RSD keeps of one drafted step, and which requests lead there."""
    policy = rsd(threshold(delta))
    requests = [next(policy), policy.send(DRAFT)]
    requests.append(policy.send(reward))
    if not isinstance(requests[-1], Keep):
        requests.append(policy.send(TARGET))
    return requests


@pytest.mark.parametrize("reward", [0.7, 0.70001, 1.0])
def test_a_draft_step_at_or_above_the_threshold_stays_with_its_reward(reward):
    assert one_step(reward) == [Write("draft"), Judge(DRAFT), Keep(DRAFT, reward)]


@pytest.mark.parametrize("reward", [0.0, 0.69999])
def test_a_draft_step_below_the_threshold_is_rewritten_unscored(reward):
    rejected = Rejected(DRAFT.text, reward, 3)
    assert one_step(reward) == [
        *(Write("draft"), Judge(DRAFT), Write("target")),
        Keep(TARGET, reward=None, rejected=rejected),
    ]


def test_a_reward_of_nan_is_a_reject():
    requests = one_step(math.nan)
    assert requests[2] == Write("target")
    assert one_step(math.nan, delta=0.0)[2] == Write("target")


def test_the_threshold_of_zero_accepts_every_number_and_one_only_certainty():
    assert threshold(0.0)(0.0)
    assert threshold(1.0)(1.0)
    assert not threshold(1.0)(math.nextafter(1.0, 0.0))


@pytest.mark.parametrize("reward", [0.9, 0.1])
def test_after_a_kept_step_the_draft_is_asked_again(reward):
    policy = rsd(threshold(0.7))
    for _ in range(3):
        assert next(policy) == Write("draft")
        assert policy.send(DRAFT) == Judge(DRAFT)
        request = policy.send(reward)
        if reward < 0.7:
            assert request == Write("target")
            policy.send(TARGET)


@pytest.mark.parametrize("ended", ["eog", "max_tokens", "max_steps", "context"])
@pytest.mark.parametrize("reward", [0.9, 0.1])
def test_rsd_ends_with_the_reason_that_keeping_a_step_gives(ended, reward):
    policy = rsd(threshold(0.7))
    next(policy)
    policy.send(DRAFT)
    if not isinstance(policy.send(reward), Keep):
        policy.send(TARGET)
    with pytest.raises(StopIteration) as stop:
        policy.send(ended)
    assert stop.value.value == ended


@pytest.mark.parametrize("author", ["draft", "target"])
def test_a_model_alone_writes_every_step_and_is_never_judged(author):
    policy, step = alone(author), proposal(author)
    for _ in range(3):
        assert next(policy) == Write(author)
        assert policy.send(step) == Keep(step)
    assert policy.send(None) == Write(author)
    policy.send(step)
    with pytest.raises(StopIteration) as stop:
        policy.send("eog")
    assert stop.value.value == "eog"


def test_an_audit_keeps_the_draft_and_asks_what_the_target_would_have_earned():
    policy = audit()
    kept: list[Keep] = []
    request = next(policy)
    while len(kept) < 10:
        if request == Write("draft"):
            request = policy.send(DRAFT)
        elif request == Write("target", watch=True, beside=DRAFT):
            request = policy.send(TARGET)
        elif request == Judge(DRAFT):
            request = policy.send(0.3)
        elif request == Judge(TARGET, beside=DRAFT):
            request = policy.send(0.8)
        else:
            assert isinstance(request, Keep)
            kept.append(request)
            request = policy.send(None)
    assert all(keep.step is DRAFT and keep.reward == 0.3 for keep in kept)
    assert [i for i, keep in enumerate(kept) if keep.audited is not None] == [1, 5, 9]
    assert kept[1].audited == 0.8
    assert [keep.others for keep in kept[:2]] == [
        (),
        (Candidate(TARGET.text, "target", 0.8, len(TARGET.ids)),),
    ]

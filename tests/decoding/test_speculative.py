"""Speculative steps: by hand, and through the runner on tiny engines, where the text is the target's own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from rsd_cli.decoding.events import Judging, Kept, Streamed
from rsd_cli.decoding.policies import Check, Judge, Keep, Propose, Write, alone, rsd
from rsd_cli.decoding.runner import Failed, Finished, Runner, finished
from rsd_cli.decoding.speculative import NOTHING, Stride, speculating
from rsd_cli.decoding.strategies import PAIR, STRATEGIES, Kind
from rsd_cli.decoding.trajectory import Answerer, Problem, Settings
from rsd_cli.engine.jobs import Checked, Drawn, Proposed
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.speculation import Guess
from rsd_cli.records import Guesses, Rejected
from rsd_cli.rewards.families import Confidence
from tests.decoding.test_policies import proposal
from tests.decoding.test_runner import ENDLESS, PROBLEMS, Flag
from tests.decoding.tiny_trio import TinyTrio
from tests.engine.driving import NO_END

GREEDY = Settings(strategy="speculative", threshold=0.5, max_tokens=120, max_steps=12, system="Answer.")
WARM = replace(GREEDY, sampling=Sampling(temperature=0.8))
LIKES = {" sum": 3.0, " equals": 3.0, " number": 3.0, " step": 3.0, "So": 3.0, " answer": 3.0, " is": 3.0}
SAME = {"draft": ("llama", 2), "target": ("llama", 2)}
NEAR = {"draft": ("llama", 2, LIKES), "target": ("llama", 2)}  # about half of what it proposes is accepted
OTHER = {"draft": ("llama", 1), "target": ("llama", 2)}
GUESSES = tuple(map(Guess, (5, 6, 7, 8)))


def asked(begun, n):
    return Propose(begun, n, Stride().p_min)


def proposed(guesses=GUESSES):
    return Proposed(0, guesses, 1.0)


def checked(tokens=(5, 6, 9), text="1 is", accepted=2, ended=None):
    return Checked(0, tuple(tokens), text, accepted, 4 - accepted, ended, 10.0)


@pytest.fixture
def trio(tiny_model):
    made = []

    def make(cast, favour=ENDLESS, **options):
        models = {
            role: tiny_model(kind, seed=seed, favour=dict(favour, **likes[0] if likes else {}))
            for role, (kind, seed, *likes) in cast.items()
        }
        made.append(TinyTrio(models, **{"reproducible": True} | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def answered(trio, settings=GREEDY, seats=1, problems=PROBLEMS):
    happened = list(Runner(trio, settings, seats).run(problems))
    return [done for one in happened if (done := finished(one))], happened


def texts(finished):
    return {one.trajectory.problem.id: one.trajectory.text for one in finished}


def counting(engine):
    """Counts what an engine decodes for its seats; what pads a batch is not theirs."""
    decode, seen = engine._memory.decode, []

    def counted(rows, *, hidden, fill):
        outputs = decode(rows, hidden=hidden, fill=fill)
        seen.append(sum(len(row.tokens) for row in rows))
        return outputs

    engine._memory.decode = counted
    return seen


def strides(monkeypatch, stride):
    """Let the strategy begin with another stride."""
    kind = Kind(lambda _: speculating(alone("target"), stride()), PAIR)
    monkeypatch.setitem(STRATEGIES, "speculative", kind)


def test_a_step_is_made_of_what_is_proposed_and_checked():
    policy = speculating(alone("target"))
    assert next(policy) == asked(NOTHING, 4)
    assert policy.send(proposed()) == Check(replace(NOTHING, ms=1.0), GUESSES)
    request = policy.send(checked())
    begun = replace(NOTHING, text="1 is", ids=(5, 6, 9), ms=11.0, guesses=Guesses(4, 2, 2, 1))
    assert request == asked(begun, 3)
    assert policy.send(proposed(GUESSES[:1])) == Check(replace(begun, ms=12.0), GUESSES[:1])
    request = policy.send(checked((5,), " 1.\n\n", 1, "separator"))
    told = Guesses(proposed=5, accepted=3, refused=5, refusals=2)
    step = replace(begun, text="1 is 1.\n\n", ids=(5, 6, 9, 5), ended="separator", ms=22.0, guesses=told)
    assert request == Keep(step)
    assert policy.send(None) == asked(NOTHING, 3), "the stride goes on with the next step"
    policy.send(proposed())
    policy.send(checked(ended="eog"))
    with pytest.raises(StopIteration) as stop:
        policy.send("eog")
    assert stop.value.value == "eog"


def test_in_rsd_only_the_targets_steps_are_speculative():
    draft, policy = proposal("draft"), speculating(rsd(lambda reward: reward >= 0.7))
    assert next(policy) == Write("draft")
    assert policy.send(draft) == Judge(draft)
    assert policy.send(0.9) == Keep(draft, 0.9)
    assert policy.send(None) == Write("draft")
    assert policy.send(draft) == Judge(draft)
    there = tuple(map(Guess, draft.ids))
    assert policy.send(0.1) == Check(NOTHING, there), "the rejected step is proposed, without the draft"
    request = policy.send(checked((*draft.ids[:2], 9), "1", 2))
    assert isinstance(request, Propose), "then it is no longer the same step"
    assert request.begun.ids == (*draft.ids[:2], 9)
    policy.send(proposed())
    request = policy.send(checked((5,), ".\n\n", 1, "separator"))
    assert isinstance(request, Keep)
    assert (request.step.author, request.step.text) == ("target", "1.\n\n")
    assert request.step.guesses == Guesses(4, 3, 5, 2), "the draft had three already"
    assert request.rejected == Rejected(draft.text, 0.1, 3)


def test_a_rejected_step_is_proposed_piece_by_piece_and_never_for_a_later_step():
    draft = proposal("draft", ids=range(1, 10))
    policy = speculating(rsd(lambda reward: reward >= 0.7), Stride(4, 4, 4))
    next(policy)
    policy.send(draft)
    assert policy.send(0.1) == Check(NOTHING, tuple(map(Guess, (1, 2, 3, 4))))
    request = policy.send(checked((1, 2, 3, 4, 5), "one", 4))
    assert isinstance(request, Check)
    assert request.guesses == tuple(map(Guess, (6, 7, 8, 9)))
    request = policy.send(checked((6, 7, 8, 9, 10), "two", 4))
    assert isinstance(request, Propose), "there is no more of it"


def test_a_policy_that_asks_the_target_later_does_not_get_an_old_step():
    def alternating():
        while True:
            yield Keep((yield Write("draft")))
            yield Keep((yield Write("target")))

    policy = speculating(alternating())
    next(policy)
    policy.send(proposal("draft"))
    assert policy.send(None) == asked(NOTHING, 4)


def test_what_is_watched_is_checked_watchfully():
    def watching():
        yield Keep((yield Write("target", watch=True)))

    policy, sure = speculating(watching()), (Drawn(-0.5, 1.5), Drawn(-0.25, 0.5), Drawn(-1.0, 2.0))
    next(policy)
    assert policy.send(proposed()) == Check(replace(NOTHING, ms=1.0), GUESSES, watch=True)
    policy.send(replace(checked(), drawn=sure))
    policy.send(proposed())
    request = policy.send(replace(checked((5,), ended="separator"), drawn=(Drawn(-2.0, 3.0),)))
    assert isinstance(request, Keep)
    assert (request.step.logprob, request.step.entropy) == (-3.75, 1.5)


@pytest.mark.parametrize(
    "request_",
    [
        [Write("target"), Write("target", 1)],
        Write("target", max_tokens=1),
        Write("target", begun=NOTHING),
        Write("target", after=(NOTHING,)),
    ],
)
def test_what_is_no_whole_step_by_itself_stays_what_it_is(request_):
    def asking():
        yield request_

    assert next(speculating(asking())) == request_


@pytest.mark.parametrize(
    ("n", "guesses", "accepted", "tokens", "then"),
    [
        (4, 4, 4, 5, 6),
        (15, 15, 15, 16, 16),
        (16, 16, 16, 17, 16),
        (4, 4, 3, 4, 3),
        (4, 4, 0, 1, 3),
        (1, 1, 0, 1, 1),
        (1, 1, 1, 2, 3),
        (4, 2, 2, 3, 4),  # the draft itself stopped: nothing speaks for more
        (4, 2, 1, 2, 3),
        (4, 0, 0, 1, 4),
        (4, 4, 2, 2, 4),  # the step ended at an accepted token: none was refused
    ],
)
def test_the_stride_grows_by_two_and_shrinks_by_one(n, guesses, accepted, tokens, then):
    stride = Stride(n)
    stride.learn(guesses, checked(range(tokens), accepted=accepted))
    assert stride.n == then


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("cast", [SAME, NEAR, OTHER])
@pytest.mark.parametrize("k", [1, 2, 5, 16, None])
def test_a_greedy_text_is_the_targets_own(k, cast, seats, trio, monkeypatch):
    strides(monkeypatch, Stride if k is None else partial(Stride, k, k, k, p_min=0.0))
    few = PROBLEMS[:4]
    own, _ = answered(trio({"target": cast["target"]}), replace(GREEDY, strategy="target"), problems=few)
    found, _ = answered(trio(cast, seats=seats), seats=seats, problems=few)
    assert texts(found) == texts(own)
    steps = {one.trajectory.problem.id: one.trajectory.kept for one in own}
    for one in found:
        for step, alike in zip(one.trajectory.kept, steps[one.trajectory.problem.id], strict=True):
            assert (step.author, step.text, step.ids) == ("target", alike.text, alike.ids)
            assert step.ended == alike.ended


@pytest.mark.parametrize("streams", [1, 2])
def test_texts_do_not_depend_on_how_many_seats_and_streams_there_are(streams, trio):
    few, plain = (
        PROBLEMS[:4],
        {"kv_type": "f32"},
    )  # 16 bits round the noise between batches up to a thousandth
    one = texts(answered(trio(NEAR, **plain), WARM, problems=few)[0])
    assert texts(answered(trio(NEAR, seats=3, streams=streams, **plain), WARM, 3, few)[0]) == one
    assert len(set(one.values())) == len(few)
    assert texts(answered(trio(NEAR, **plain), replace(WARM, seed=1), problems=few)[0]) != one


@pytest.mark.parametrize("settings", [GREEDY, WARM])
def test_all_of_the_models_own_proposals_are_accepted(settings, trio):
    found, _ = answered(trio(SAME), settings)
    for one in found:
        assert one.usage["draft"].generated > 0
        drafted = sum(step.drafted for step in one.trajectory.kept)
        left = one.usage["draft"].generated - drafted
        assert one.usage["draft"].discarded == left <= 16, "only behind the end of a step"
        assert drafted > one.trajectory.tokens / 2


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("settings", [GREEDY, WARM])
@pytest.mark.parametrize("cast", [SAME, NEAR, OTHER])
@pytest.mark.parametrize("p_min", [0.0, 0.75])
def test_every_decoded_token_is_counted_once(p_min, cast, settings, seats, trio, monkeypatch):
    strides(monkeypatch, partial(Stride, p_min=p_min))
    made = trio(cast, seats=seats)
    seen = {role: counting(engine) for role, engine in made.loaded().items()}
    found, _ = answered(made, settings, seats)
    drafts = sum(one.usage["draft"].decoded for one in found)
    assert drafts == sum(seen["draft"])
    # What an answer's last token is was sampled; like the target alone, it may end without decoding that.
    surplus = sum(one.usage["target"].decoded for one in found) - sum(seen["target"])
    assert 0 <= surplus <= len(found)
    for one in found:
        draft, target, answer = one.usage["draft"], one.usage["target"], one.trajectory
        drafted = sum(step.drafted for step in answer.kept)
        assert target.generated == answer.tokens == sum(step.tokens for step in answer.steps)
        assert target.discarded == answer.refused <= draft.discarded
        assert draft.discarded == draft.generated - drafted
        steps = len(answer.steps)
        assert target.fed <= target.prompt + answer.refused + steps, "at most one token a step is read again"


def test_the_draft_knows_the_targets_tokens_and_reads_none_again(trio):
    """Its context is the target's text in the target's own tokens, not tokenized anew."""
    made = trio(NEAR)
    found, _ = answered(made)
    for one in found:
        draft, target = (one.trajectory.participants[role] for role in ("draft", "target"))
        assert isinstance(draft, Answerer)
        assert isinstance(target, Answerer)
        assert draft.steps == target.steps
        checks = one.usage["target"].generated
        assert one.usage["draft"].fed <= one.usage["draft"].prompt + checks


def test_a_target_may_know_more_tokens_than_its_draft(tiny_model):
    """Tokens that the draft does not have are read as another; a larger draft's guesses are refused."""
    common = {**ENDLESS, "[PAD500]": 4.0, "[PAD510]": 4.0}
    small, large = tiny_model(seed=1, favour=ENDLESS), tiny_model(seed=2, vocab=512, favour=common)
    itself = TinyTrio({"target": large}, reproducible=True)
    own, _ = answered(itself, replace(GREEDY, strategy="target"))
    itself.close()
    assert any(max(step.ids) >= small.n_vocab for one in own for step in one.trajectory.kept)
    for draft, target in ((small, large), (large, small)):
        made = TinyTrio({"draft": draft, "target": target}, reproducible=True)
        found, _ = answered(made)
        assert len(found) == len(PROBLEMS)
        if target is large:
            assert texts(found) == texts(own)
        made.close()


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({"max_steps": 2}, "max_steps"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"max_tokens": 15}, "max_tokens"),
        ({"max_tokens": 100_000, "max_steps": 100_000}, "context"),
    ],
)
@pytest.mark.parametrize("cast", [SAME, NEAR, OTHER])
def test_an_answer_ends_where_the_targets_own_does(cast, change, ended, trio):
    settings = replace(GREEDY, **change)
    found, _ = answered(trio(cast, n_ctx=256), settings, problems=PROBLEMS[:2])
    own, _ = answered(
        trio({"target": cast["target"]}, n_ctx=256),
        replace(settings, strategy="target"),
        problems=PROBLEMS[:2],
    )
    assert [one.ended_by for one in found] == [ended, ended]
    assert texts(found) == texts(own)
    if "max_tokens" in change and ended == "max_tokens":
        assert {one.trajectory.tokens for one in found} == {change["max_tokens"]}


def test_a_draft_with_less_context_than_its_target_leaves_the_rest_to_it(tiny_model):
    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.seats import Engine

    target = tiny_model(seed=2, favour=NO_END)
    made = TinyTrio({"draft": target, "target": target}, n_ctx=512, reproducible=True)
    made._engines["draft"].close()
    made._engines["draft"] = Engine(target, ContextOptions(256, 1, 256, threads=1, flash_attention=False))
    found, _ = answered(made, replace(GREEDY, max_tokens=10_000), problems=PROBLEMS[:1])
    assert found[0].ended_by == "context"
    tokens = found[0].trajectory.tokens + found[0].usage["target"].prompt
    assert tokens == made.engine("target").n_ctx > made.engine("draft").n_ctx
    made.close()


def test_an_answer_that_ends_itself_says_so(trio):
    found, _ = answered(trio(NEAR, favour={"<eos>": 300.0}))
    assert {one.ended_by for one in found} == {"eog"}
    assert {one.trajectory.text for one in found} == {""}


@pytest.mark.parametrize("settings", [GREEDY, WARM])
@pytest.mark.parametrize("family", ["judge", "confidence"])
@pytest.mark.parametrize("strategy", ["rsd", "audit"])
def test_any_strategys_target_may_write_speculatively(strategy, family, settings, trio):
    """Up to its first step by the target a greedy answer is the one without: then the draft has its very tokens."""
    settings = replace(settings, strategy=strategy, threshold=0.5 if family == "judge" else 0.4)
    cast = NEAR | ({"prm": ("llama", 3)} if family == "judge" else {})
    reward = None if family == "judge" else Confidence()
    made = trio(cast, family=reward)
    seen = {role: counting(engine) for role, engine in made.loaded().items()}
    found, happened = answered(made, replace(settings, speculative=True), problems=PROBLEMS[:4])
    assert any(step.drafted for one in found for step in one.trajectory.kept) == (strategy == "rsd")
    authors = {step.author for one in found for step in one.trajectory.steps}
    assert authors == ({"draft", "target"} if strategy == "rsd" else {"draft"})
    assert any(isinstance(each, Judging) for each in happened)
    plain, _ = answered(trio(cast, family=reward), settings, problems=PROBLEMS[:4])
    for one, other in zip(found, plain, strict=True) if settings.sampling is None else ():
        for own, alike in zip(one.trajectory.steps, other.trajectory.steps, strict=True):
            assert (own.author, own.text) == (alike.author, alike.text)
            assert own.reward == pytest.approx(alike.reward, abs=1e-4)
            assert own.audited == pytest.approx(alike.audited, abs=1e-4)
            if own.author == "target":
                break
    for one in found:
        draft = one.usage["draft"]
        kept = sum(step.tokens for step in one.trajectory.steps if step.author == "draft")
        drafted = sum(step.drafted for step in one.trajectory.kept)
        assert draft.discarded == draft.generated - kept - drafted
    for role in ("draft", "target"):
        surplus = sum(one.usage[role].decoded for one in found if role in one.usage) - sum(seen[role])
        steps = sum(len(one.trajectory.steps) for one in found)
        assert 0 <= surplus <= 2 * steps, "what plain steps sample last need not be decoded"


@pytest.mark.parametrize(
    ("cast", "said"),
    [
        ({"draft": ("other", 1), "target": ("llama", 2)}, "can't propose tokens to"),
        ({"draft": ("mamba", 1), "target": ("llama", 2)}, "recurrent"),
        ({"draft": ("llama", 1), "target": ("hybrid", 2)}, "recurrent"),
    ],
)
def test_models_that_are_no_pair_fail_with_a_sentence(cast, said, trio):
    happened = list(Runner(trio(cast), GREEDY).run(PROBLEMS[:2]))
    assert [type(each) for each in happened] == [Failed, Failed]
    for each in happened:
        assert isinstance(each, Failed)
        assert said in each.error.message
        assert each.error.exit_code == 3
        assert "\n" not in each.error.message


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("after", [1, 9, 20])
def test_an_interrupted_answer_keeps_what_the_target_has_accepted(after, seats, trio):
    flag = Flag()
    made = trio(NEAR, favour=NO_END, seats=seats, aborted=flag)
    own, _ = answered(trio({"target": NEAR["target"]}, favour=NO_END), replace(GREEDY, strategy="target"))
    happened, sampled = [], 0
    for one in Runner(made, GREEDY, seats).run(PROBLEMS):
        happened.append(one)
        sampled += isinstance(one, Streamed)
        flag.raised = flag.raised or sampled >= after * seats
    ended = [one for one in happened if isinstance(one, Finished)]
    assert len(ended) == seats, "the rest is not begun"
    for one in ended:
        assert one.ended_by == "interrupted"
        streamed = [e.text for e in happened if isinstance(e, Streamed) and e.id == one.trajectory.problem.id]
        assert one.trajectory.text == "".join(streamed) != ""
        assert texts(own)[one.trajectory.problem.id].startswith(one.trajectory.text)
        assert one.usage["target"].generated == one.trajectory.steps[-1].tokens
        assert one.usage["draft"].discarded >= 0
    assert not any(engine.busy for engine in made.loaded().values())
    flag.raised = False
    assert texts(answered(made, seats=seats)[0]) == texts(own)


def test_only_the_targets_tokens_are_streamed(trio):
    found, happened = answered(trio(NEAR), WARM, problems=PROBLEMS[:1])
    streamed = [each for each in happened if isinstance(each, Streamed)]
    assert {each.author for each in streamed} == {"target"}
    assert "".join(each.text for each in streamed) == found[0].trajectory.text
    assert [each.step for each in happened if isinstance(each, Kept)] == found[0].trajectory.steps


def test_several_samples_of_a_question_differ_and_each_is_counted(trio):
    problems = [Problem("p", PROBLEMS[0].question, branch=branch) for branch in range(6)]
    made = trio(NEAR, seats=6)
    seen = counting(made.engine("draft"))
    found, _ = answered(made, WARM, 6, problems)
    assert len({one.trajectory.text for one in found}) == 6
    assert sum(one.usage["draft"].decoded for one in found) == sum(seen)

"""Every strategy over real tiny engines: what is kept, what is counted, and that lanes read nothing anew."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from rsd_cli.decoding.events import Judged, Kept, Streamed
from rsd_cli.decoding.policies import Likelihood, Proposal, alone
from rsd_cli.decoding.requests import Requests
from rsd_cli.decoding.runner import Failed, Finished, Runner
from rsd_cli.decoding.strategies import parse
from rsd_cli.decoding.trajectory import Pending, Problem, Trajectory
from rsd_cli.engine.jobs import Observed, Write
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.seats import Engine
from rsd_cli.records import Usage
from rsd_cli.rewards.families import Confidence
from tests.decoding.test_draft_head import TWO, head, head_on
from tests.decoding.test_runner import CAST, ENDLESS, PROBLEMS, SETTINGS, answered, texts, trio
from tests.engine.driving import finish, logits_after

__all__ = ["head", "head_on", "trio"]  # the fixtures
GREEDY = Sampling(temperature=0.0)
ALIKE = {"draft": ("llama", 1), "target": ("llama", 2), "prm": ("llama", 3)}  # one vocabulary
# Without half floats: in these, sums of other numbers of rows can part as much as two near-best tokens.
WHOLE = {"kv_type": "f32", "reproducible": True}
STEPWISE = [
    "rsd", "keep-better", "rsd-n@3", "gsi@3", "judge", "glimpse", "glimpse:target", "confidence",
    "first-k-by-target@2", "process-best-of-n@3", "process-best-of-n@2:target", "beam@2", "best-of-n@2", "audit",
]  # fmt: skip
PAIRED = [name for name in STEPWISE if parse(name).has_pair]
WIDE = ["rsd-n@3", "gsi@3", "process-best-of-n@3", "process-best-of-n@2:target", "beam@2"]


def settings(strategy, **changes):
    kind = parse(strategy).kind
    own = {"threshold": 0.5 if kind.threshold is None else kind.threshold} | changes
    return replace(SETTINGS, strategy=strategy, **own)


def seats_of(strategy, problems=1):
    return parse(strategy).width * problems


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("strategy", STEPWISE)
def test_every_strategy_answers_every_problem_once_and_frees_its_seats(strategy, at_once, trio):
    seats = seats_of(strategy, at_once)
    made = trio(ALIKE, favour=ENDLESS, seats=seats)
    finished, happened = answered(made, PROBLEMS[:3], settings(strategy), seats)
    assert sorted(one.trajectory.problem.id for one in finished) == ["p0", "p1", "p2"]
    assert not any(engine.busy for engine in made.loaded().values())
    assert not any(seat.taken for engine in made.loaded().values() for seat in engine.seats)
    for one in finished:
        assert one.ended_by in ("max_tokens", "max_steps", "eog")
        own = [e.step for e in happened if isinstance(e, Kept) and e.id == one.trajectory.problem.id]
        assert own == one.trajectory.steps
        assert set(one.usage) <= set(parse(strategy).roles)


@pytest.mark.parametrize("strategy", STEPWISE)
def test_what_a_generator_sampled_was_kept_or_discarded(strategy, trio):
    seats = seats_of(strategy)
    finished, happened = answered(
        trio(ALIKE, favour=ENDLESS, seats=seats), PROBLEMS[:2], settings(strategy), seats
    )
    for one in finished:
        for role in ("draft", "target"):
            usage = one.usage.get(role)
            kept = sum(step.tokens for step in one.trajectory.steps if step.author == role)
            mine = [e for e in happened if isinstance(e, Streamed) and e.id == one.trajectory.problem.id]
            sampled = sum(each.author == role for each in mine)
            assert (usage.generated if usage else 0) == sampled
            if usage:
                assert usage.generated == kept + usage.discarded


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("family", [None, "confidence"])
@pytest.mark.parametrize("strategy", PAIRED)
def test_any_target_may_write_speculatively_and_all_is_counted(strategy, family, at_once, trio):
    """Side by side, and where a step was begun otherwise, the target writes as ever."""
    seats = seats_of(strategy, at_once)
    changes = {} if strategy == "gsi@3" else {"threshold": 0.999}
    made = trio(ALIKE, favour=ENDLESS, seats=seats, **({"family": Confidence()} if family else {}))
    asked = settings(strategy, speculative=True, **changes)
    finished, _ = answered(made, PROBLEMS[:3], asked, seats)
    assert sorted(one.trajectory.problem.id for one in finished) == ["p0", "p1", "p2"]
    assert not any(seat.taken for engine in made.loaded().values() for seat in engine.seats)
    drafted = 0
    for one in finished:
        kept = one.trajectory.kept
        accepted = sum(step.drafted for step in kept)
        own = {
            role: sum(len(step.ids) for step in kept if step.author == role) for role in ("draft", "target")
        }
        draft, target = (one.usage.get(role, Usage()) for role in ("draft", "target"))
        assert draft.generated == own["draft"] + accepted + draft.discarded
        assert target.generated == own["target"] + target.discarded - one.trajectory.refused
        drafted += sum(step.guesses is not None for step in kept)
        judged = [
            step for step in one.trajectory.steps if step.author == "target" and step.reward is not None
        ]
        assert all(0 < step.reward < 1 for step in judged if strategy == "keep-better")
    assert bool(drafted) == (strategy not in ("gsi@3", "glimpse:target", "audit"))


@pytest.mark.parametrize("strategy", [*WIDE, "rsd", "keep-better", "audit"])
def test_the_record_tells_of_every_token_that_was_sampled(strategy, trio):
    seats = seats_of(strategy)
    finished, _ = answered(trio(ALIKE, favour=ENDLESS, seats=seats), PROBLEMS[:3], settings(strategy), seats)
    for one in finished:
        steps = one.trajectory.steps
        for role in ("draft", "target"):
            told = sum(step.tokens for step in steps if step.author == role)
            told += sum(each.tokens for step in steps for each in step.others if each.author == role)
            told += sum(step.rejected.tokens for step in steps if step.rejected and role == "draft")
            assert told == (one.usage[role].generated if role in one.usage else 0)


def test_no_beam_goes_on_behind_the_last_token_that_is_allowed(trio, monkeypatch):
    """Also where a separator was that token, in a beam that had steps left."""
    asked, ended = [], set()
    submit = Engine.submit

    def noted(engine, index, job, *siblings):
        asked.append(job)
        return submit(engine, index, job, *siblings)

    monkeypatch.setattr(Engine, "submit", noted)
    made = trio(ALIKE, favour=ENDLESS, seats=8)
    for max_tokens in range(24, 64, 4):
        finished, _ = answered(made, PROBLEMS[:2], settings("beam@2", max_tokens=max_tokens), 8)
        ended |= {(one.ended_by, one.trajectory.text.endswith("\n\n")) for one in finished}
        for one in finished:
            steps = one.trajectory.steps
            others = sum(each.tokens for step in steps for each in step.others)
            assert one.usage["draft"].generated == sum(step.tokens for step in steps) + others
    assert min(job.max_tokens for job in asked if isinstance(job, Write)) > 0
    assert ("max_tokens", True) in ended


@pytest.mark.parametrize("strategy", WIDE)
def test_greedy_candidates_are_equal_and_so_is_the_answer_of_the_model_alone(strategy, trio):
    author, seats = parse(strategy).author, seats_of(strategy)
    still = settings(strategy, sampling=GREEDY, threshold=-99.0)  # tilted rewards can be below 0
    made = partial(trio, ALIKE, favour=ENDLESS, **WHOLE)
    many, _ = answered(made(seats=seats), PROBLEMS[:3], still, seats)
    alone, _ = answered(made(), PROBLEMS[:3], replace(still, strategy=author))
    assert texts(many) == texts(alone)
    assert all(len(text) > 40 for text in texts(many).values())
    for one in many:
        for step in one.trajectory.steps:
            assert {each.text for each in step.others} <= {step.text}


def candidates(one, author):
    """Tokens of all candidates of an author that are in the record, kept ones included."""
    steps = one.trajectory.steps
    own = [step for step in steps if step.author == author]
    own += [each for step in steps for each in step.others if each.author == author]
    own += [step.rejected for step in steps if step.rejected and author == "draft"]
    return sum(each.tokens for each in own)


def foreign(one, role):
    """Tokens of kept steps that a role had to read, since it did not write them."""
    steps = zip(one.trajectory.participants[role].steps, one.trajectory.steps, strict=True)
    return sum(len(ids) for ids, step in steps if step.author != role)


@pytest.mark.parametrize(("kind", "streams"), [("llama", 0), ("llama", 2), ("mamba", 0), ("hybrid", 0)])
@pytest.mark.parametrize("strategy", WIDE)
def test_lanes_never_read_a_shared_prefix_anew(strategy, kind, streams, trio):
    """A generator reads the question and others' kept steps once for all lanes, and two tokens a lane and step."""
    width = seats_of(strategy)
    cast = {role: (kind, seed) for role, (_, seed) in ALIKE.items()}
    made = trio(cast, favour=ENDLESS, seats=width, streams=streams)
    finished, _ = answered(made, PROBLEMS[:3], settings(strategy), width)
    for one in finished:
        at_boundaries = 2 * width * (len(one.trajectory.steps) + 1)
        for role in ("draft", "target"):
            if role in one.usage:
                weighed = candidates(one, "draft") if (strategy, role) == ("gsi@3", "target") else 0
                once = one.usage[role].prompt + foreign(one, role) + weighed
                assert one.usage[role].fed <= once + at_boundaries


@pytest.mark.parametrize("kind", ["llama", "mamba"])
@pytest.mark.parametrize("strategy", ["rsd-n@3", "process-best-of-n@3"])
def test_a_prm_reads_the_question_once_and_each_candidate_once(strategy, kind, trio):
    cast = {role: (kind, seed) for role, (_, seed) in ALIKE.items()}
    made = trio(cast, favour=ENDLESS, seats=3)
    finished, _ = answered(made, PROBLEMS[:3], settings(strategy), 3)
    tokens, asked = made.engine("prm").model.tokenize, len(made.family._question)
    for one in finished:
        steps = one.trajectory.steps
        texts = [step.rejected.text if step.rejected else step.text for step in steps]
        texts += [each.text for step in steps for each in step.others]
        kept = sum(len(tokens(step.text)) for step in steps)  # where the target's was kept
        read = sum(len(tokens(text)) + asked + 2 for text in texts)
        assert one.usage["prm"].fed <= one.usage["prm"].prompt + kept + read


def test_the_question_is_read_once_for_all_lanes(trio):
    long = Problem("long", "Hello World, so then answer. " * 30)
    made = trio(ALIKE, favour=ENDLESS, seats=8)
    finished, _ = answered(made, [long], settings("process-best-of-n@8", max_steps=1), 8)
    for role in ("draft", "prm"):
        usage = finished[0].usage[role]
        assert usage.prompt > 250
        assert usage.fed < 2 * usage.prompt


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
@pytest.mark.parametrize("strategy", ["rsd-n@2", "beam@1", "gsi@2", "glimpse", "judge"])
def test_models_that_can_not_be_cut_answer_as_well(strategy, kind, trio):
    cast = {role: (kind, i) for i, role in enumerate(CAST, start=1)}
    seats = seats_of(strategy)
    still = settings(strategy, sampling=GREEDY, threshold=-99.0)
    made = trio(cast, favour=ENDLESS, seats=seats)
    many, _ = answered(made, PROBLEMS[:2], still, seats)
    alone, _ = answered(trio(cast, favour=ENDLESS), PROBLEMS[:2], replace(still, strategy="draft"))
    assert texts(many) == texts(alone)


@pytest.mark.parametrize("strategy", [*WIDE, "keep-better", "best-of-n@2:target"])
@pytest.mark.parametrize("family", ["head", "confidence"])
def test_rewards_that_need_no_model_work_side_by_side(strategy, family, trio, head):
    chosen = head if family == "head" else Confidence()
    seats, least = seats_of(strategy), -1.0 if strategy == "gsi@3" else 0.3
    cast = {**TWO, "target": ("llama", 2)}
    made = trio(cast, favour=ENDLESS, family=chosen, seats=seats)
    finished, _ = answered(made, PROBLEMS[:3], settings(strategy, threshold=least), seats)
    author = parse(strategy).author
    rewards = [step.reward for one in finished for step in one.trajectory.steps if step.author == author]
    assert rewards
    assert all(reward is not None for reward in rewards)
    for one in finished:
        own = sum(step.tokens for step in one.trajectory.steps if step.author == author)
        assert one.usage[author].generated == own + one.usage[author].discarded
        assert "prm" not in one.usage


def test_a_glimpse_costs_nothing_where_the_draft_goes_on(trio):
    still = settings("glimpse", sampling=GREEDY, threshold=0.0)
    seen, _ = answered(trio(TWO, favour=ENDLESS), PROBLEMS[:3], still)
    alone, _ = answered(trio(TWO, favour=ENDLESS), PROBLEMS[:3], replace(still, strategy="draft"))
    assert texts(seen) == texts(alone)
    for one, plain in zip(seen, alone, strict=True):
        assert replace(one.usage["draft"], reused=0) == replace(plain.usage["draft"], reused=0)
        assert "target" not in one.usage


def test_a_glimpse_in_vain_costs_one_token(trio):
    made = trio(TWO, favour=ENDLESS)
    finished, _ = answered(made, PROBLEMS[:3], settings("glimpse", threshold=1.0))
    for one in finished:
        steps = one.trajectory.steps
        assert {step.author for step in steps} == {"target"}
        assert one.usage["draft"].generated == one.usage["draft"].discarded == len(steps)
        assert all(step.rejected and step.rejected.tokens == 1 for step in steps)


def test_the_targets_grade_is_between_0_and_1_and_its_reading_serves_the_next_step(trio):
    made = trio(TWO, favour=ENDLESS)
    finished, happened = answered(made, PROBLEMS[:3], settings("judge", threshold=0.0))
    grades = [one.reward for one in happened if isinstance(one, Judged)]
    assert grades
    assert all(grade is not None and 0 < grade < 1 for grade in grades)
    assert len(set(grades)) == len(grades)
    for one in finished:
        usage, steps = one.usage["target"], one.trajectory.steps
        assert usage.generated == 0
        context = one.trajectory.participants["target"].context
        asked = (
            len(made.prompt("target", "Answer.", "x" * 90)) + 60
        )  # about the question and the frame around it
        assert usage.fed <= len(context) + len(steps) * (asked + 2)


@pytest.mark.parametrize("chunk", [256, 16])
def test_a_likelihood_is_what_the_target_computes_token_by_token(chunk, trio, tiny_engine):
    """In one decode, and in several."""
    made = trio(ALIKE, favour=ENDLESS, **WHOLE)
    made.engine("target").context.n_batch = chunk
    ids = tuple(made.engine("draft").model.tokenize("The sum of Hello and 12 is then the number of so.\n\n"))
    step = Proposal("draft", "", ids, "separator", 0.0, 0.0)
    trajectory = Trajectory(PROBLEMS[0], (0,), alone("draft"), SETTINGS)
    assert Requests(made).submit(trajectory, Likelihood(step)) == Pending("target", 0)
    (told,) = [update.logprob for update in finish(made.engine("target")) if isinstance(update, Observed)]
    engine, expected = tiny_engine("llama", seed=2, favour=ENDLESS, n_ctx=1024), 0.0
    context = made.prompt("target", SETTINGS.system, PROBLEMS[0].question)
    for token in ids:
        logits = logits_after(engine, context)
        expected += logits[token] - np.logaddexp.reduce(logits)
        context = [*context, token]
    assert told == pytest.approx(expected, abs=0.01)


def test_gsi_refuses_two_vocabularies(trio):
    made = trio(CAST, favour=ENDLESS, seats=2)
    happened = list(Runner(made, settings("gsi@2"), 2).run(PROBLEMS[:2]))
    failed = [one for one in happened if isinstance(one, Failed)]
    assert len(failed) == 2
    assert all("one vocabulary" in one.error.message for one in failed)


def test_a_strategy_wider_than_the_seats_fails_with_both_numbers(trio):
    happened = list(Runner(trio(ALIKE, seats=2), settings("rsd-n@3"), 2).run(PROBLEMS[:2]))
    messages = [one.error.message for one in happened if isinstance(one, Failed)]
    assert len(messages) == len(happened) == 2
    assert all("3 seats, there are 2" in message for message in messages)


def test_wide_and_narrow_problems_share_the_seats(trio):
    made = trio(ALIKE, favour=ENDLESS, seats=4)
    problems = [
        Problem(f"p{i}", "What is it?", settings=settings("rsd-n@3" if i % 2 else "rsd")) for i in range(8)
    ]
    finished, _ = answered(made, problems, seats=4)
    assert len(finished) == 8
    assert {len(one.trajectory.seats) for one in finished} == {1, 3}


def test_an_interrupt_keeps_a_candidate_that_was_being_written(trio):
    raised: list[bool] = []
    made = trio(ALIKE, favour=ENDLESS, seats=8, aborted=lambda: bool(raised))
    happened, sampled = [], 0
    for one in Runner(made, settings("beam@2"), 8).run(PROBLEMS[:2]):
        happened.append(one)
        sampled += isinstance(one, Streamed)
        if sampled == 150:
            raised.append(True)
    (finished,) = [one for one in happened if isinstance(one, Finished)]
    assert finished.ended_by == "interrupted"
    assert finished.trajectory.text
    draft = finished.usage["draft"]
    assert draft.generated == sampled
    assert draft.generated == draft.discarded + sum(step.tokens for step in finished.trajectory.steps)
    assert not any(engine.busy for engine in made.loaded().values())


@pytest.mark.parametrize("per", ["run", "problem"])
def test_a_budget_decides_how_many_steps_the_target_writes(per, trio):
    problems = [Problem(f"p{i}", f"What is {i}?") for i in range(30)]
    made = trio(TWO, favour=ENDLESS, family=Confidence(), seats=4)
    budget = settings("rsd", target_share=0.3, share_per=per)
    finished, _ = answered(made, problems, budget, 4)
    steps = [step for one in finished for step in one.trajectory.steps]
    share = sum(step.author == "target" for step in steps) / len(steps)
    assert len(steps) > 100
    assert abs(share - 0.3) < (0.03 if per == "run" else 0.08)


def test_accepting_at_random_depends_on_no_neighbour(trio):
    at_random = settings("rsd", weighting="constant")
    one = texts(answered(trio(reproducible=True), settings=at_random)[0])
    made = trio(seats=3, reproducible=True)
    assert texts(answered(made, settings=at_random, seats=3)[0]) == one


@pytest.mark.parametrize("strategy", ["rsd-n@2", "gsi@2", "beam@1", "keep-better", "glimpse"])
def test_no_strategy_gives_a_problem_another_text_for_its_neighbours(strategy, trio):
    """On these files the sums are the same; llama.cpp promises it for none."""
    made = settings(strategy, beta=5.0)
    width = seats_of(strategy)
    one = texts(answered(trio(ALIKE, seats=width, reproducible=True), PROBLEMS[:3], made, width)[0])
    many = trio(ALIKE, seats=2 * width, reproducible=True)
    assert texts(answered(many, PROBLEMS[2::-1], made, 2 * width)[0]) == one
    other = texts(answered(trio(ALIKE, seats=width), PROBLEMS[:3], replace(made, seed=1), width)[0])
    assert all(one[name] != other[name] for name in one)


def test_one_draft_for_each_step_is_rsd(trio):
    plain = texts(answered(trio(reproducible=True), PROBLEMS[:3], settings("rsd"))[0])
    assert texts(answered(trio(reproducible=True), PROBLEMS[:3], settings("rsd-n@1"))[0]) == plain

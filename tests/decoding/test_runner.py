"""The runner over real tiny engines: events in order, every problem once, nothing decoded twice."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest

from rsd_cli.decoding.events import Judged, Judging, Kept, Reading, Streamed
from rsd_cli.decoding.recording import Circumstances, make_record
from rsd_cli.decoding.runner import Failed, Finished, Runner, finished
from rsd_cli.decoding.trajectory import Problem, Settings
from rsd_cli.engine.jobs import Read
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.templates import Message
from rsd_cli.errors import ModelError, ResourceError, UsageError
from rsd_cli.records import ModelId
from rsd_cli.rewards.families import Confidence, Solution
from tests.decoding.tiny_trio import TinyTrio
from tests.engine.driving import NO_END

PROBLEMS = [
    Problem(f"p{i}", f"What is {i} + {i * i}? Hello World, so {'then ' * i}answer.") for i in range(7)
]
WARM = Sampling(temperature=0.8)
SETTINGS = Settings(threshold=0.5, max_tokens=120, max_steps=12, system="Answer.", sampling=WARM)
CAST = {"draft": ("llama", 1), "target": ("other", 2), "prm": ("llama", 3)}
ENDLESS = {"<eos>": -50.0, "\n\n": 3.0, ".\n\n": 3.0}


@pytest.fixture
def trio(tiny_model):
    made = []

    def make(cast=CAST, favour=None, **options):
        more = {"favour": favour} if favour else {}
        models = {role: tiny_model(kind, seed=seed, **more) for role, (kind, seed) in cast.items()}
        made.append(TinyTrio(models, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def answered(trio, problems=PROBLEMS, settings=SETTINGS, seats=1):
    """Every finished problem, in order, with all events; raises what a problem failed with."""
    happened = list(Runner(trio, settings, seats).run(problems))
    return [done for one in happened if (done := finished(one))], happened


def texts(finished):
    return {one.trajectory.problem.id: one.trajectory.text for one in finished}


def test_an_answer_has_steps_of_both_authors_and_rewards(trio):
    finished, _ = answered(trio(favour=ENDLESS), PROBLEMS[:3])
    steps = [step for one in finished for step in one.trajectory.steps]
    assert {step.author for step in steps} == {"draft", "target"}
    for step in steps:
        if step.author == "draft":
            assert step.reward == 0.9
            assert step.rejected is None
        else:
            assert step.reward is None
            assert step.rejected is not None
            assert step.rejected.reward == 0.2


def test_the_events_of_a_step_come_in_the_order_in_which_it_is_made(trio):
    finished, happened = answered(trio(favour=ENDLESS), PROBLEMS[:1])
    assert happened[-1] is finished[0]
    order = [type(one) for one in happened if isinstance(one, Judging | Judged | Kept)]
    assert order == [Judging, Judged, Kept] * len(finished[0].trajectory.steps)
    streamed, kept, author = "", [], ""
    for one in happened:
        if isinstance(one, Streamed):
            streamed, author = streamed + one.text, one.author
        elif isinstance(one, Judging):
            assert author == "draft"
        elif isinstance(one, Judged):
            assert one.text == streamed
            assert one.reward is not None
            assert one.accepted == (one.reward >= SETTINGS.threshold)
            streamed = streamed if one.accepted else ""
        elif isinstance(one, Kept):
            assert (one.step.text, one.step.author) == (streamed, author)
            kept.append(one.step)
            streamed = ""
    assert kept == finished[0].trajectory.steps


def test_reading_is_reported_and_never_beyond_its_end(trio):
    long = Problem("long", "Hello World. " * 120)
    _, happened = answered(trio(), [long])
    reading = [one for one in happened if isinstance(one, Reading)]
    assert {one.role for one in reading} >= {"draft", "prm"}
    assert all(0 <= one.done < one.total for one in reading)
    first = reading[0]
    assert (first.role, first.done) == ("draft", 0)  # said before anything is read
    assert [type(one) for one in happened[:2]] == [Reading, Reading]


@pytest.mark.parametrize("seats", [1, 3, 16])
def test_every_problem_is_answered_exactly_once(seats, trio):
    finished, happened = answered(trio(seats=seats), seats=seats)
    assert sorted(one.trajectory.problem.id for one in finished) == [one.id for one in PROBLEMS]
    for one in finished:
        own = [e.step for e in happened if isinstance(e, Kept) and e.id == one.trajectory.problem.id]
        assert own == one.trajectory.steps


def test_no_problem_is_no_work(trio):
    assert answered(trio(), []) == ([], [])


def test_a_problems_text_does_not_depend_on_seats_or_on_its_place(trio):
    """On these files the sums are the same for one row and for three; llama.cpp promises it for none."""
    one = texts(answered(trio(reproducible=True))[0])
    for streams in (1, 2, 3):  # fewer than seats: memories are parked and come back
        made = trio(seats=3, streams=streams, reproducible=True)
        assert texts(answered(made, seats=3)[0]) == one
    assert texts(answered(trio(reproducible=True), PROBLEMS[::-1])[0]) == one
    assert len(set(one.values())) == len(PROBLEMS)


def test_another_seed_gives_another_text(trio):
    one = texts(answered(trio(), PROBLEMS[:2])[0])
    other = texts(answered(trio(), PROBLEMS[:2], replace(SETTINGS, seed=1))[0])
    assert all(one[name] != other[name] for name in one)


@pytest.mark.parametrize("strategy", ["draft", "target"])
def test_a_model_alone_needs_no_other(strategy, trio):
    alone = trio({strategy: CAST[strategy]}, favour=ENDLESS)
    finished, happened = answered(alone, PROBLEMS[:2], replace(SETTINGS, strategy=strategy))
    assert {step.author for one in finished for step in one.trajectory.steps} == {strategy}
    assert not any(isinstance(one, Judging | Judged) for one in happened)
    assert all(set(one.usage) == {strategy} for one in finished)


@pytest.mark.parametrize(("rule", "author"), [(lambda _: True, "draft"), (lambda _: False, "target")])
def test_a_prm_that_always_says_the_same_leaves_one_author(rule, author, trio):
    finished, _ = answered(trio(rule=rule), PROBLEMS[:2])
    assert {step.author for one in finished for step in one.trajectory.steps} == {author}
    for one in finished:
        assert ("target" in one.usage) == (author == "target"), "the target is asked only when it must write"


CASTS = {
    "two vocabularies": CAST,
    "one model": {"draft": ("llama", 1), "target": ("llama", 1), "prm": ("llama", 1)},
    "sentencepiece": {"draft": ("spm-bytes", 1), "target": ("llama", 2), "prm": ("other", 3)},
    "recurrent": {"draft": ("mamba", 1), "target": ("mamba", 2), "prm": ("mamba", 3)},
    "hybrid": {"draft": ("hybrid", 1), "target": ("hybrid", 2), "prm": ("hybrid", 3)},
    "mixed": {"draft": ("hybrid", 1), "target": ("other", 2), "prm": ("mamba", 3)},
}


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("cast", CASTS)
def test_no_role_decodes_a_token_twice(cast, seats, trio):
    """The bar of the record: what is fed again is at most two tokens a step."""
    made = trio(CASTS[cast], seats=seats, favour=None if "piece" in cast else ENDLESS)
    system = "" if "spm-bytes" in dict(CASTS[cast].values()) else SETTINGS.system
    finished, _ = answered(made, PROBLEMS, replace(SETTINGS, system=system), seats)
    rejections = sum(step.rejected is not None for one in finished for step in one.trajectory.steps)
    assert rejections > 0
    for one in finished:
        steps = len(one.trajectory.steps)
        for role, usage in one.usage.items():
            participant = one.trajectory.participants[role]
            final = len(participant.context) - len(participant.prompt)
            bar = usage.prompt + final + usage.discarded + 2 * steps
            assert usage.fed + usage.generated <= bar, (role, usage, final, steps)
            assert usage.generated == 0 or role != "prm"


def test_what_a_generator_discards_is_what_it_sampled_in_vain(trio):
    finished, _ = answered(trio(favour=ENDLESS))
    for one in finished:
        steps = one.trajectory.steps
        rejected = sum(step.rejected.tokens for step in steps if step.rejected)
        assert one.usage["draft"].discarded == rejected
        by_draft = sum(step.tokens for step in steps if step.author == "draft")
        assert one.usage["draft"].generated == by_draft + rejected
        if "target" in one.usage:
            assert one.usage["target"].discarded == 0


def test_the_prm_discards_its_question_after_every_step(trio):
    made = trio(favour=ENDLESS)
    finished, _ = answered(made, PROBLEMS[:1])
    question = len(made.family._question)
    judged = len(finished[0].trajectory.steps)
    assert finished[0].usage["prm"].discarded >= (judged - 1) * question


def test_the_prompt_that_is_reported_is_the_one_of_the_template(trio):
    made = trio()
    finished, _ = answered(made, PROBLEMS[:1])
    for role, usage in finished[0].usage.items():
        assert usage.prompt == len(finished[0].trajectory.participants[role].prompt)
    question = PROBLEMS[0].question
    assert finished[0].usage["draft"].prompt == len(made.prompt("draft", SETTINGS.system, question))
    assert finished[0].usage["prm"].prompt == len(made.family.context(Solution(question)))


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({"max_steps": 2}, "max_steps"),
        ({"max_tokens": 15}, "max_tokens"),
        ({"max_tokens": 100_000, "max_steps": 100_000}, "context"),
    ],
)
def test_an_answer_that_is_cut_says_by_what(change, ended, trio):
    finished, _ = answered(trio(favour=ENDLESS, n_ctx=512), PROBLEMS[:2], replace(SETTINGS, **change))
    assert [one.ended_by for one in finished] == [ended, ended]
    for one in finished:
        assert sum(step.tokens for step in one.trajectory.steps) <= SETTINGS.max_tokens or ended == "context"
        if ended == "max_steps":
            assert len(one.trajectory.steps) == 2
        if ended == "max_tokens":
            assert sum(step.tokens for step in one.trajectory.steps) == 15


def test_an_answer_that_ends_itself_says_so(trio):
    finished, _ = answered(trio(favour={"<eos>": 300.0}), PROBLEMS[:2])
    assert [one.ended_by for one in finished] == ["eog", "eog"]


def test_a_question_longer_than_the_context_says_both_numbers(trio):
    made = trio(n_ctx=256)
    question = "Hello World. " * 200
    needed = len(made.prompt("draft", SETTINGS.system, question))
    with pytest.raises(UsageError, match=f"{needed:,} tokens long.*context of 256") as caught:
        answered(made, [Problem("long", question)])
    assert caught.value.exit_code == 2


def test_confidence_watches_the_draft_and_needs_no_prm_model(trio):
    cast = {role: CAST[role] for role in ("draft", "target")}
    finished, _ = answered(
        trio(cast, favour=ENDLESS, family=Confidence()), settings=replace(SETTINGS, threshold=0.15)
    )
    steps = [step for one in finished for step in one.trajectory.steps]
    rewards = [step.reward for step in steps if step.reward is not None]
    rejected = [step.rejected.reward for step in steps if step.rejected]
    assert rewards
    assert rejected
    assert all(0.15 <= reward <= 1 for reward in rewards)
    assert all(0 <= reward < 0.15 for reward in rejected if reward is not None)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_rejects_the_step_and_is_null(reward, trio):
    made = trio(favour=ENDLESS)
    made.family.reward = lambda _observed, _solution: reward
    finished, happened = answered(made, PROBLEMS[:2], replace(SETTINGS, threshold=0.0))
    verdicts = [one for one in happened if isinstance(one, Judged)]
    assert verdicts
    assert {(one.reward, one.accepted) for one in verdicts} == {(None, False)}
    for one in finished:
        steps = json.loads(record_of(made, one).to_json())["steps"]
        assert {step["author"] for step in steps} == {"target"}
        assert {step["rejected"]["reward"] for step in steps} == {None}


@pytest.mark.parametrize("seats", [1, 3])
def test_a_step_that_the_prm_cannot_hold_is_written_by_the_target(seats, trio):
    """The PRM's own layout may need more tokens than the draft's: that ends no answer."""
    made = trio(favour=ENDLESS, seats=seats)
    made.family.job = lambda _solution: Read([1] * (made.engine("prm").n_ctx + 1), (0,), ())
    finished, _ = answered(made, PROBLEMS[:4], seats=seats)
    assert len(finished) == 4
    for one in finished:
        assert one.ended_by in ("max_steps", "max_tokens", "eog")
        for step in one.trajectory.steps:
            assert step.author == "target"
            assert step.rejected is not None
            assert step.rejected.reward is None
        assert one.usage["prm"].fed == 0


class Flag:
    raised = False

    def __call__(self):
        return self.raised


@pytest.mark.parametrize("seats", [1, 3])
def test_an_interrupted_answer_keeps_the_step_being_written(seats, trio):
    flag = Flag()
    made = trio({**CAST, "target": ("llama", 2)}, favour=NO_END, seats=seats, aborted=flag)
    happened, sampled = [], 0
    for one in Runner(made, SETTINGS, seats).run(PROBLEMS):
        happened.append(one)
        sampled += isinstance(one, Streamed)
        flag.raised = flag.raised or sampled >= 8 * seats
    finished = [one for one in happened if isinstance(one, Finished)]
    assert len(finished) == seats, "the rest is not begun"
    for one in finished:
        assert one.ended_by == "interrupted"
        own = [e.text for e in happened if isinstance(e, Streamed) and e.id == one.trajectory.problem.id]
        assert one.trajectory.text == "".join(own) != ""
        assert one.trajectory.steps[-1].reward is None
        assert one.usage["draft"].generated == one.trajectory.steps[-1].tokens
        assert one.usage["draft"].discarded == 0
    assert not any(engine.busy for engine in made.loaded().values())
    flag.raised = False
    again, _ = answered(made, PROBLEMS[:4], seats=seats)
    assert len(again) == 4


def test_an_interrupt_while_the_question_is_read_ends_without_a_step(trio):
    flag = Flag()
    made = trio(aborted=flag)
    flag.raised = True
    finished, happened = answered(made, PROBLEMS[:2])
    assert [one.ended_by for one in finished] == ["interrupted"]
    assert finished[0].trajectory.steps == []
    assert finished[0].usage["draft"].generated == 0
    assert [type(one) for one in happened] == [Reading, Finished]
    flag.raised = False
    assert len(answered(made, PROBLEMS[:2])[0]) == 2


def test_an_interrupt_while_a_step_is_judged_keeps_that_step_unjudged(trio):
    flag = Flag()
    made = trio(favour=ENDLESS, aborted=flag)
    happened = []
    for one in Runner(made, SETTINGS).run(PROBLEMS[:1]):
        happened.append(one)
        flag.raised = flag.raised or isinstance(one, Judging)
    streamed = "".join(one.text for one in happened if isinstance(one, Streamed))
    last = happened[-1]
    assert isinstance(last, Finished)
    assert last.ended_by == "interrupted"
    assert [step.text for step in last.trajectory.steps] == [streamed]
    assert last.trajectory.steps[0].reward is None
    assert not any(isinstance(one, Judged) for one in happened)
    assert not any(engine.busy for engine in made.loaded().values())


def test_an_audited_step_is_told_as_accepted(trio):
    made = trio(favour=ENDLESS)
    finished, happened = answered(made, PROBLEMS[:3], replace(SETTINGS, strategy="audit"))
    verdicts = [one for one in happened if isinstance(one, Judged)]
    assert any(step.audited is not None for one in finished for step in one.trajectory.steps)
    assert [one.text for one in verdicts] == [step.text for one in finished for step in one.trajectory.steps]
    assert all(one.accepted for one in verdicts)


@pytest.mark.parametrize("moment", [Streamed, Judging])
def test_an_interrupted_audit_keeps_the_drafts_step(moment, trio):
    """While the target shows what it would have written, or that is judged."""
    flag = Flag()
    made = trio(favour=ENDLESS, aborted=flag)
    happened, by_target = [], False
    for one in Runner(made, replace(SETTINGS, strategy="audit")).run(PROBLEMS[:1]):
        happened.append(one)
        by_target = by_target or (isinstance(one, Streamed) and one.author == "target")
        flag.raised = flag.raised or (by_target and isinstance(one, moment))
    end = happened[-1]
    assert isinstance(end, Finished)
    assert end.ended_by == "interrupted"
    assert {step.author for step in end.trajectory.steps} == {"draft"}
    assert [step.text for step in end.trajectory.steps] == [
        one.text for one in happened if isinstance(one, Judged)
    ]


def record_of(trio, finished):
    models = {role: ModelId(role, None, engine.model.parameters) for role, engine in trio.loaded().items()}
    now = time.perf_counter()
    target = trio.engine("target").model
    run = Circumstances(models, {"trio": "test"}, now - 2, now - 1, now, target, 10)
    return make_record(finished, run)


def test_a_records_compute_is_that_of_the_tokens_that_were_decoded(trio):
    made = trio(favour=ENDLESS)
    finished, _ = answered(made, PROBLEMS[1:2])
    record = record_of(made, finished[0])
    for role in ("draft", "target", "prm"):
        usage = record.usage[role]
        cost = 2.0 * record.models[role].parameters * (usage.fed + usage.generated)
        assert getattr(record.flops, role) == cost
    assert record.flops.total == record.flops.draft + record.flops.target + record.flops.prm
    text = len(made.engine("target").model.tokenize(record.answer))
    assert record.flops.target_only == 2.0 * record.models["target"].parameters * (10 + text)


def test_a_record_says_what_decided_the_answer(trio):
    made = trio(favour=ENDLESS)
    finished, _ = answered(made, PROBLEMS[1:2])
    record = record_of(made, finished[0])
    assert record.answer == "".join(step.text for step in record.steps)
    assert record.settings["temperature"] == 0.8
    assert record.settings["threshold"] == 0.5
    assert record.settings["max_steps"] == 12
    assert record.settings["trio"] == "test"
    assert (record.strategy, record.seed) == ("rsd", 0)
    assert set(record.usage) == set(record.timings.roles) == {"draft", "target", "prm"}
    assert record.timings.roles["draft"].decode_ms > 0


def test_a_problem_that_can_not_be_asked_fails_by_itself(trio):
    made = trio(n_ctx=256, seats=2)
    long = Problem("long", "Hello World. " * 200)
    happened = list(Runner(made, SETTINGS, 2).run([PROBLEMS[0], long, *PROBLEMS[1:3]]))
    (failed,) = [one for one in happened if isinstance(one, Failed)]
    assert failed.problem is long
    assert "too many for its context" in failed.error.message
    done = {one.trajectory.problem.id for one in happened if isinstance(one, Finished)}
    assert done == {problem.id for problem in PROBLEMS[:3]}


@pytest.mark.parametrize(("asks", "steps"), [("context", 0), ("job", 1), ("job", 2)])
def test_an_answer_that_the_prms_template_refuses_fails_by_itself(asks, steps, trio):
    """Its turns may be the steps, so that it is rendered anew for each number of them."""
    made = trio(favour=ENDLESS, seats=2)
    lay_out = getattr(made.family, asks)

    def refused(solution):
        if solution.question == PROBLEMS[1].question and len(solution.steps) == steps:
            raise ModelError("The chat template fails.")
        return lay_out(solution)

    setattr(made.family, asks, refused)
    happened = list(Runner(made, SETTINGS, 2).run(PROBLEMS[:3]))
    (failed,) = [one for one in happened if isinstance(one, Failed)]
    assert (failed.problem, failed.error.exit_code) == (PROBLEMS[1], 3)
    assert {one.trajectory.problem.id for one in happened if isinstance(one, Finished)} == {"p0", "p2"}
    assert taken(made) == []


def test_weights_that_compute_nonsense_fail_every_problem_and_free_the_seats(tiny_model):
    made = TinyTrio({"draft": tiny_model(nan=True)}, seats=2)
    happened = list(Runner(made, replace(SETTINGS, strategy="draft"), 2).run(PROBLEMS[:5]))
    made.close()
    assert [type(one) for one in happened if not isinstance(one, Reading)] == [Failed] * 5


def taken(trio):
    """The seats that engines hold for somebody."""
    return [
        (role, seat.index) for role, engine in trio.loaded().items() for seat in engine.seats if seat.taken
    ]


def test_an_error_that_ends_a_run_leaves_no_seat_behind(trio, monkeypatch):
    """As in a conversation, where the target may fail to load and the person asks again."""
    made = trio(favour=ENDLESS, seats=3)
    engine = made.engine

    def broken(role):
        if role == "target":
            raise ResourceError("llama.cpp could not load the target.")
        return engine(role)

    monkeypatch.setattr(made, "engine", broken)
    with pytest.raises(ResourceError):
        answered(made, seats=3)
    assert taken(made) == []
    assert not any(engine.busy for engine in made.loaded().values())
    monkeypatch.undo()
    again, _ = answered(made, PROBLEMS[:1], seats=3)
    assert [one.trajectory.problem.id for one in again] == ["p0"]
    steps = again[0].trajectory.steps
    rejected = sum(step.rejected.tokens for step in steps if step.rejected)
    assert again[0].usage["draft"].generated == rejected + sum(
        step.tokens for step in steps if step.author == "draft"
    )


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_run_that_nobody_reads_to_the_end_leaves_no_seat_behind(side_by_side, trio):
    made = trio(favour=ENDLESS, seats=3)
    runner = Runner(made, SETTINGS, 3, side_by_side=side_by_side)
    run = runner.run(PROBLEMS)
    while not isinstance(next(run), Judged):
        pass
    assert len(taken(made)) >= 3
    run.close()
    assert taken(made) == []


def test_a_run_may_end_after_its_engines_were_freed(trio):
    """An error's traceback holds the generator, and is let go when all is closed."""
    made = trio(favour=ENDLESS, seats=3, reproducible=True)
    run = Runner(made, SETTINGS, 3).run(PROBLEMS)
    while not isinstance(next(run), Judged):
        pass
    for engine in made.loaded().values():
        engine.close()
    run.close()
    assert taken(made) == []


def test_a_problem_has_its_own_settings_where_it_brings_some(trio):
    made = trio(favour=ENDLESS, seats=3)
    short = replace(SETTINGS, max_tokens=4)
    alone = replace(SETTINGS, strategy="target", max_tokens=30)
    problems = [
        Problem("run", "What?"),
        Problem("short", "What?", settings=short),
        Problem("alone", "What?", settings=alone),
    ]
    finished = {one.trajectory.problem.id: one for one in answered(made, problems, seats=3)[0]}
    assert finished["short"].trajectory.tokens == 4
    assert {step.author for step in finished["alone"].trajectory.steps} == {"target"}
    assert finished["run"].trajectory.tokens > 30


def test_earlier_turns_are_read_before_the_question(trio):
    made = trio()
    before = (Message("user", "Hello?"), Message("assistant", "World."))
    (one,) = answered(made, [Problem("turns", "What?", before)])[0]
    expected = len(made.prompt("draft", SETTINGS.system, "What?", before))
    assert one.usage["draft"].prompt == expected > len(made.prompt("draft", SETTINGS.system, "What?"))


def test_branches_of_a_problem_differ_and_stay_the_same(trio):
    branches = [Problem("p", "What is it?", branch=i) for i in range(4)]
    first, again = (
        {
            one.trajectory.problem.branch: one.trajectory.text
            for one in answered(trio(favour=ENDLESS), branches)[0]
        }
        for _ in range(2)
    )
    assert first == again
    assert len(set(first.values())) == 4


def test_a_problem_that_has_had_its_time_ends_with_what_is_there(trio):
    made = trio(favour=ENDLESS, n_ctx=1024)
    limit = replace(SETTINGS, max_tokens=900, max_steps=900, max_seconds=0.05)
    (one,) = answered(made, PROBLEMS[:1], limit)[0]
    assert one.ended_by == "timeout"
    assert one.trajectory.tokens < 900
    assert not any(engine.busy for engine in made.loaded().values())


def test_an_answer_is_not_lost_where_the_prms_template_refuses_its_last_steps(trio):
    made = trio(favour=ENDLESS, n_ctx=1024)
    lay_out, ask = made.family.context, made.family.job

    def job(solution):
        made.family.context = lay_out
        try:
            return ask(solution)
        finally:
            made.family.context = refused

    def refused(solution):
        if solution.steps:
            raise ModelError("The chat template fails.")
        return lay_out(solution)

    made.family.context, made.family.job = refused, job
    limit = replace(SETTINGS, max_tokens=900, max_steps=900, max_seconds=0.05)
    (one,) = answered(made, PROBLEMS[:1], limit)[0]
    assert (one.ended_by, bool(one.trajectory.steps)) == ("timeout", True)
    assert taken(made) == []


def test_answers_come_while_the_input_is_still_open(trio):
    done: list[str] = []

    def slowly():
        yield PROBLEMS[0]
        while not done:
            yield None
        yield PROBLEMS[1]

    for one in Runner(trio(seats=2), SETTINGS, 2).run(slowly()):
        done += [one.trajectory.problem.id] if isinstance(one, Finished) else []
    assert done == ["p0", "p1"]


def test_engines_that_step_side_by_side_answer_the_same(trio):
    expected = texts(answered(trio(seats=3, reproducible=True), seats=3)[0])
    made = trio(seats=3, reproducible=True)
    happened = list(Runner(made, SETTINGS, 3, side_by_side=True).run(PROBLEMS))
    assert texts([one for one in happened if isinstance(one, Finished)]) == expected


def test_the_fullest_batch_goes_first(trio, monkeypatch):
    """With three seats or more on two models, no decode leaves the larger part of them waiting."""
    made = trio(favour=ENDLESS, seats=8)
    waiting: dict[bool, int] = {}
    step = Engine.step

    def watched(self):
        most = max(engine.n_waiting for engine in made.loaded().values())
        waiting[self.n_waiting == most] = waiting.get(self.n_waiting == most, 0) + 1
        return step(self)

    monkeypatch.setattr(Engine, "step", watched)
    answered(made, seats=8)
    assert set(waiting) == {True}

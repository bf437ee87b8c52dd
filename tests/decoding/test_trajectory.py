"""One answer in the making: its limits, its seeds, and what each role knows of it."""

from __future__ import annotations

import pytest

from rsd_cli.decoding.policies import Keep, Proposal, alone
from rsd_cli.decoding.trajectory import Answerer, Problem, Settings, Trajectory, solved
from rsd_cli.engine.templates import Message
from rsd_cli.rewards.families import Solution
from tests.engine.driving import text_of


def trajectory(problem="p", seat=0, **settings):
    return Trajectory(Problem(problem, "What?"), (seat,), alone("draft"), Settings(**settings))


def step(text="Hello World.\n\n", ids=(1, 2, 3), author="draft", ended="separator"):
    return Keep(Proposal(author, text, tuple(ids), ended, -1.0, 5.0))


def test_an_answer_goes_on_while_nothing_ends_it():
    made = trajectory()
    assert made.keep(step()) is None
    assert made.keep(step()) is None
    assert made.text == "Hello World.\n\n" * 2
    assert made.tokens_left == 2048 - 6


@pytest.mark.parametrize("ended", ["eog", "context"])
def test_the_last_step_says_why_the_answer_is_over(ended):
    assert trajectory().keep(step(ended=ended)) == ended


def test_an_answer_ends_at_its_most_steps():
    made = trajectory(max_steps=2)
    assert made.keep(step()) is None
    assert made.keep(step()) == "max_steps"


def test_an_answer_ends_at_its_most_tokens():
    made = trajectory(max_tokens=6)
    assert made.keep(step()) is None
    assert made.tokens_left == 3
    assert made.keep(step(ended="max_tokens")) == "max_tokens"
    assert made.tokens_left == 0


def test_an_end_of_generation_on_the_last_allowed_step_is_no_cut():
    made = trajectory(max_steps=1, max_tokens=3)
    assert made.keep(step(ended="eog")) == "eog"


def seeds(made, *roles):
    return [made.next_seed(role) for role in roles]


def test_seeds_depend_on_the_runs_seed_the_problem_the_role_and_the_job():
    expected = seeds(trajectory("p", seed=1), "draft", "target", "draft")
    others = [
        seeds(trajectory("q", seed=1), "draft", "target", "draft"),
        seeds(trajectory("p", seed=2), "draft", "target", "draft"),
        seeds(trajectory("p", seed=1), "target", "draft", "target"),
    ]
    assert len(set(expected)) == 3
    assert all(set(expected).isdisjoint(other) for other in others)
    assert all(0 <= seed < 1 << 32 for seed in expected)


def test_seeds_depend_on_nothing_else():
    made = trajectory("p", seat=0, seed=1)
    other = trajectory("p", seat=3, seed=1, strategy="draft", threshold=0.1, max_steps=5, system="x")
    other.keep(step())
    assert seeds(made, "draft", "target") == seeds(other, "draft", "target")


def test_an_author_keeps_its_own_tokens_and_others_read_the_text(tiny_model):
    made, draft, target = trajectory(), tiny_model("llama"), tiny_model("other")
    made.join("draft", Answerer(draft, [7]))
    made.join("target", Answerer(target, [8, 9]))
    # The draft spelt it letter by letter, which is not how its tokenizer would.
    ids = [token for letter in "Hello" for token in draft.tokenize(letter)]
    assert ids != draft.tokenize("Hello")
    made.keep(step("Hello", ids))
    assert made.participants["draft"].context == [7, *ids]
    assert made.participants["target"].context == [8, 9, *target.tokenize("Hello")]


def test_who_joins_late_catches_up_with_all_kept_steps(tiny_model):
    made, draft, target = trajectory(), tiny_model("llama"), tiny_model("other")
    made.join("draft", Answerer(draft, [7]))
    own = target.tokenize("So 2.\n\n")
    made.keep(step("Hello World.\n\n", draft.tokenize("Hello World.\n\n")))
    made.keep(step("So 2.\n\n", own, author="target"))
    made.join("target", Answerer(target, [8]))
    late = made.participants["target"]
    assert late.context == [8, *target.tokenize("Hello World.\n\n"), *own]
    assert text_of(target, late.context[1:]) == made.text
    made.join("prm", Answerer(target, [5]))
    assert text_of(target, made.participants["prm"].context[1:]) == made.text


def test_a_kept_step_remembers_author_reward_tokens_and_time():
    made = trajectory()
    made.keep(Keep(Proposal("draft", "So.", (1, 2), "eog", -1.0, 12.345), reward=0.9))
    kept = made.steps[0]
    assert (kept.text, kept.author, kept.reward, kept.tokens, kept.ms) == ("So.", "draft", 0.9, 2, 12.3)
    assert kept.rejected is None


@pytest.mark.parametrize(
    ("answer", "steps"),
    [
        ("Step 1\n\nStep 2", ("Step 1\n\n", "Step 2")),
        ("Step 1\n\nStep 2\n", ("Step 1\n\n", "Step 2\n")),
        ("a\nb\n\n", ("a\nb\n\n",)),
        ("a\n\n\n\n  b", ("a\n\n\n\n", "  b")),
        ("\n\na\n\n \n\nb", ("a\n\n", "b")),
        ("", ()),
        (" \n\n\n", ()),
    ],
)
def test_an_earlier_answer_has_the_steps_that_say_something(answer, steps):
    before = (Message("system", "Be brief."), Message("user", "What?"), Message("assistant", answer))
    assert solved((*before, Message("user", "And?"))) == (Solution("What?", steps),)

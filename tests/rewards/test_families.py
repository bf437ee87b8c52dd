"""Families: what a judge reads, and what its logits and a draft's confidence mean."""

from __future__ import annotations

import math

import pytest

from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import QUESTION, Confidence, Judge
from tests.engine.driving import text_of


@pytest.fixture
def judge(tiny_model):
    renderer = Renderer()
    yield lambda kind="llama", **options: Judge(
        tiny_model(kind, **options), ChatTemplate(tiny_model(kind, **options), renderer)
    )
    renderer.close()


@pytest.mark.parametrize("kind", ["llama", "other", "spm"])
def test_a_judge_reads_the_question_the_steps_and_then_asks(kind, judge, tiny_model):
    model, made = tiny_model(kind), judge(kind)
    prompt = made.prompt("What is 1 + 2?")
    steps = [model.tokenize("It is 3.\n\n"), model.tokenize("So 4.\n\n")]
    job = made.job(prompt, steps)
    text = text_of(model, list(job.context))
    assert "What is 1 + 2?" in text
    assert text.index("It is 3.") < text.index("So 4.") < text.index(QUESTION.strip())
    assert list(job.context[: job.boundaries[-1]]) == [*prompt, *steps[0], *steps[1]]


def test_the_next_judgement_begins_with_all_that_the_last_one_knew_up_to_its_boundary(judge, tiny_model):
    made, model = judge(), tiny_model()
    prompt, step = made.prompt("What?"), model.tokenize("So 3.\n\n")
    first, second = made.job(prompt, [step]), made.job(prompt, [step, step])
    assert list(second.context[: first.boundaries[-1]]) == list(first.context[: first.boundaries[-1]])


def test_a_judge_asks_for_the_logits_of_yes_and_no(judge, tiny_model):
    job = judge().job([], [])
    assert list(job.tokens) == [tiny_model().tokenize("Yes")[0], tiny_model().tokenize("No")[0]]


@pytest.mark.parametrize(
    ("logits", "reward"),
    [
        ((0.0, 0.0), 0.5),
        ((math.log(3), 0.0), 0.75),
        ((-2.0, -2.0), 0.5),
        ((50.0, -50.0), 1.0),
        ((-50.0, 50.0), 0.0),
    ],
)
def test_a_judges_reward_is_the_share_of_yes(logits, reward, judge):
    assert judge().reward(logits) == pytest.approx(reward)


@pytest.mark.parametrize(("logits", "reward"), [((-1000.0, 0.0), 0.0), ((1000.0, -1000.0), 1.0)])
def test_a_judge_that_is_very_sure_still_gives_a_reward(logits, reward, judge):
    assert judge().reward(logits) == reward


def test_a_vocabulary_that_cannot_tell_yes_from_no_is_refused(judge, tiny_model, monkeypatch):
    monkeypatch.setattr(type(tiny_model()), "tokenize", lambda _self, _text, **_options: [7])
    with pytest.raises(ModelError, match="can't be a judge"):
        judge()


@pytest.mark.parametrize(
    ("logprob", "tokens", "reward"),
    [(0.0, 5, 1.0), (3 * math.log(0.5), 3, 0.5), (math.log(0.9), 1, 0.9), (0.0, 0, 1.0), (-1e5, 1, 0.0)],
)
def test_confidence_is_the_geometric_mean_probability(logprob, tokens, reward):
    assert Confidence().reward(logprob, tokens) == pytest.approx(reward)

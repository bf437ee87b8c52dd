"""Families: what a judge reads, and what its logits and a draft's confidence mean."""

from __future__ import annotations

import math

import pytest

from rsd_cli.engine.jobs import Observed
from rsd_cli.engine.templates import ChatTemplate, Renderer
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import Confidence, Solution, aggregate
from rsd_cli.rewards.judge import QUESTION, Judge
from tests.engine.driving import text_of


@pytest.fixture
def judge(tiny_model):
    renderer = Renderer()
    yield lambda kind="llama", **options: Judge(
        tiny_model(kind, **options), ChatTemplate(tiny_model(kind, **options), renderer)
    )
    renderer.close()


STEP = "It is 3.\n\n"
SOLUTION = Solution("What is 1 + 2?", (STEP, "So 4.\n\n"))


@pytest.mark.parametrize("kind", ["llama", "other", "spm"])
def test_a_judge_reads_the_question_the_steps_and_then_asks(kind, judge, tiny_model):
    model, made = tiny_model(kind), judge(kind)
    job = made.job(SOLUTION)
    text = text_of(model, list(job.context))
    assert "What is 1 + 2?" in text
    assert text.index("It is 3.") < text.index("So 4.") < text.index(QUESTION.strip())
    assert list(job.context[: job.boundaries[-1]]) == made.context(SOLUTION)
    assert list(job.context[: job.boundaries[0]]) == made.context(SOLUTION.before)


def test_a_judge_asks_for_the_logits_of_yes_and_no(judge, tiny_model):
    job = judge().job(SOLUTION)
    assert list(job.tokens) == [tiny_model().tokenize("Yes")[0], tiny_model().tokenize("No")[0]]


@pytest.mark.parametrize(
    ("logits", "reward"),
    [
        ((0.0, 0.0), 0.5),
        ((math.log(3), 0.0), 0.75),
        ((-2.0, -2.0), 0.5),
        ((50.0, -50.0), 1.0),
        ((-50.0, 50.0), 0.0),
        ((-1000.0, 0.0), 0.0),
        ((1000.0, -1000.0), 1.0),
    ],
)
def test_a_judges_reward_is_the_share_of_yes(logits, reward, judge):
    assert judge().reward(Observed(0, logits), SOLUTION) == pytest.approx(reward)


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


@pytest.mark.parametrize(
    ("how", "score"), [("last", 0.5), ("min", 0.25), ("product", 0.125), ("mean", (1 + 0.25 + 0.5) / 3)]
)
def test_a_solutions_score_comes_from_its_steps(how, score):
    assert aggregate([1.0, 0.25, 0.5], how) == pytest.approx(score)
    assert math.isnan(aggregate([], how))


@pytest.mark.parametrize("how", ["min", "product", "mean"])
def test_a_step_without_a_reward_leaves_no_score(how):
    assert math.isnan(aggregate([0.5, math.nan, 0.1], how))

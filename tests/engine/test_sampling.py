"""Native samplers: what is drawn, and what a watching one says of its probability."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsd_cli.engine.sampling import CANDIDATES, PENALTY_WINDOW, Sampling
from tests.engine.driving import NO_END, job, logits_after, write

TEXT = "Hello World. The sum of 1 and 2 is"
WARM = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.01}


def by_hand(engine, context, drawn, top_k=CANDIDATES, penalty=1.0):
    """The total log-probability of the drawn tokens, from each position's whole row of logits."""
    total, tokens = 0.0, list(context)
    for token in drawn:
        logits = logits_after(engine, tokens)
        if penalty != 1.0:
            for seen in set(tokens[-PENALTY_WINDOW:]):
                logits[seen] = logits[seen] / penalty if logits[seen] > 0 else logits[seen] * penalty
        best = np.sort(logits)[-top_k:]
        total += logits[token] - np.logaddexp.reduce(best)
        tokens.append(token)
    return total


def test_a_seed_gives_the_same_text_every_time_and_another_seed_another(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    texts = [write(engine, context, sampling=WARM, seed=seed).text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_temperature_zero_takes_the_likeliest_token_whatever_the_seed(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    first = write(engine, context, max_tokens=8, seed=1)
    assert write(engine, context, max_tokens=8, seed=2).tokens == first.tokens
    other, tokens = tiny_engine(favour=NO_END), list(context)
    for token in first.tokens:
        assert token == int(np.argmax(logits_after(other, tokens)))
        tokens.append(token)


def test_top_k_of_one_is_greedy_at_any_temperature(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    hot = write(engine, context, sampling={"temperature": 5.0, "top_k": 1}, seed=7)
    assert hot.tokens == write(engine, context).tokens


@pytest.mark.parametrize(
    ("sampling", "by"),
    [
        ({}, {}),
        ({"temperature": 1.0, "top_k": 0}, {}),
        ({"temperature": 0.3, "top_k": 0}, {}),
        ({"temperature": 1.5, "top_k": 20}, {"top_k": 20}),
        ({"temperature": 0.8, "top_k": 40, "top_p": 0.5, "min_p": 0.05}, {"top_k": 40}),
        ({"repeat_penalty": 1.3}, {"penalty": 1.3}),
        ({"temperature": 0.7, "top_k": 0, "repeat_penalty": 1.2}, {"penalty": 1.2}),
    ],
)
def test_the_watched_probability_is_that_of_the_logits(sampling, by, tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    step = write(engine, context, sampling=sampling, watch=True, max_tokens=10, seed=5)
    expected = by_hand(tiny_engine(favour=NO_END), context, step.tokens, **by)
    assert math.isclose(step.logprob, expected, abs_tol=0.02), (step.logprob, expected)
    assert step.logprob < 0


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        WARM,
        {"top_k": 0},
        {"repeat_penalty": 1.3},
        {"temperature": 3.0, "top_k": 0},
        {"temperature": 3.0, "top_k": 100},
    ],
)
def test_watching_changes_what_is_drawn_only_where_that_is_said(sampling, tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    watched = write(engine, context, sampling=sampling, seed=3, watch=True)
    is_alike = watched.tokens == write(engine, context, sampling=sampling, seed=3).tokens
    assert is_alike is Sampling(**sampling).is_alike_when_watched


def test_a_repeat_penalty_sees_the_tokens_of_the_prompt_and_of_the_step(tiny_engine):
    engine = tiny_engine(favour={" sum": 3.0, **NO_END})
    context = engine.model.tokenize(TEXT)
    plain = write(engine, context)
    penalised = write(engine, context, sampling={"repeat_penalty": 2.0})
    assert len(set(penalised.tokens)) > len(set(plain.tokens))


def test_an_interrupted_step_can_be_looked_at_before_it_is_dropped(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    engine.submit(0, job(context, max_tokens=30))
    for _ in range(5):
        engine.step()
    partial = engine.partial(0)
    assert partial is not None
    assert len(partial.tokens) == 5
    assert not partial.text.endswith("\N{REPLACEMENT CHARACTER}")
    engine.release(0, context)
    assert not engine.busy
    assert engine.partial(0) is None

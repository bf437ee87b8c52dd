"""Exact sums: a text gives the same logits, whatever it was cut into and whatever is read or written beside it."""

from __future__ import annotations

import numpy as np
import pytest

from rsd_cli.engine.context import EVEN, ContextOptions
from rsd_cli.engine.jobs import Check, Checked, Observed, Read, Written
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.speculation import Guess
from tests.engine.driving import NO_END, fed_tokens, finish, job, logits_after

TEXT = (
    "Hello World. The sum of all numbers is the answer we so then have, step by step and word by word. " * 3
)


@pytest.fixture
def engine(tiny_model):
    """engine(seats, batch, streams): an engine on the same weights."""
    made = []

    def make(seats=1, batch=128, *, streams=0, n_ctx=512, **model):
        options = ContextOptions(n_ctx, seats, batch, threads=1, forgets=True, n_streams=streams, exact=True)
        made.append(Engine(tiny_model(**model), options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def observed(engine):
    return {each.seat: np.array(each.logits) for each in finish(engine) if isinstance(each, Observed)}


@pytest.mark.parametrize("batch", [8, 24, 100])
def test_a_text_that_grows_beside_others_gives_what_it_gives_alone(batch, engine):
    alone, many = engine(), engine(3, batch)
    tokens = many.model.tokenize(TEXT)
    every = tuple(range(many.model.n_vocab))
    for n in (5, 37, 38, 91, len(tokens)):
        for seat in range(3):
            own = [*tokens[: n - seat], seat]
            many.submit(seat, Read(own, every, (len(own),)))
        for seat, logits in observed(many).items():
            alone.forget()
            assert (logits == logits_after(alone, [*tokens[: n - seat], seat])).all()
    assert [seat.usage.fed for seat in many.seats] == [len(tokens) + 5 - seat for seat in range(3)]


def test_what_is_rejected_leaves_no_trace(engine):
    one, alone = engine(), engine()
    tokens = one.model.tokenize(TEXT)
    logits_after(one, [*tokens[:40], 7, 8, 9])
    assert (logits_after(one, tokens[:60]) == logits_after(alone, tokens[:60])).all()


def test_states_are_exact_as_well(engine):
    one, alone = engine(2), engine()
    tokens = one.model.tokenize(TEXT)
    one.submit(1, Read(tokens[:21], (1,), (21,)))
    states = []
    for each in (one, alone):
        each.submit(0, Read(tokens[:50], (), (50,), hidden=True))
        states += [
            told.hidden for told in finish(each) if isinstance(told, Observed) and told.hidden is not None
        ]
    assert np.array_equal(states[0], states[1])


def test_a_text_may_fill_the_context_to_its_last_token(engine):
    """Which is eight before its end: there it is filled up."""
    full = engine(n_ctx=256)
    tokens = (full.model.tokenize(TEXT) * 3)[: full.n_ctx]
    assert full.n_ctx == 256 - EVEN
    assert np.isfinite(logits_after(full, tokens)).all()


def test_followers_are_read_one_by_one_or_together_alike(engine):
    one, alone = engine(2, 16), engine()
    tokens = one.model.tokenize(TEXT)
    told = []
    for each in (one, alone):
        each.submit(0, Read(tokens[:60], (), (60,), followers=tuple(tokens[30:61])))
        told += [update.logprob for update in finish(each) if isinstance(update, Observed)]
    assert told[0] == told[1]


def test_reading_is_cut_at_whole_eights(engine):
    one = engine(batch=29)
    tokens = one.model.tokenize(TEXT)
    one.submit(0, Read(tokens, (1,), (len(tokens),)))
    assert all(done % EVEN == 0 for done in fed_tokens(finish(one)))


@pytest.mark.parametrize(("seats", "streams"), [(3, 8), (9, 8), (9, 12), (16, 16)])
def test_what_is_written_beside_others_is_what_is_written_alone(seats, streams, engine):
    """To the bit, also where memories are parked, others read, and seats come and go."""
    many, alone = engine(seats, streams=streams, favour=NO_END), engine(streams=8, favour=NO_END)
    tokens = many.model.tokenize(TEXT)
    jobs = [
        job([*tokens[: 3 * i + 2], i], max_tokens=9 + i, watch=True, seed=i, sampling={"temperature": 1.0})
        for i in range(seats)
    ]
    for i, each in enumerate(jobs):
        many.submit(i, each)
        many.step()
    for told in finish(many):
        if isinstance(told, Written):
            alone.submit(0, jobs[told.seat])
            one = next(each for each in finish(alone) if isinstance(each, Written))
            assert (told.tokens, told.drawn) == (one.tokens, one.drawn)
            alone.release(0)


def test_with_few_streams_what_is_written_is_what_a_check_of_it_gives(engine):
    """Token by token, or all of them in one decode: the same sums."""
    two = engine(2, streams=2, favour=NO_END)
    tokens = two.model.tokenize(TEXT)[:30]
    two.submit(1, job(tokens[:9], max_tokens=20))
    two.submit(0, job(tokens, max_tokens=12, watch=True))
    (told,) = (each for each in finish(two) if isinstance(each, Written) and each.seat == 0)
    guesses = tuple(Guess(token) for token in told.tokens)
    two.submit(0, Check([*tokens], Sampling(), 0, "\n\n", 12, watch=True, guesses=guesses))
    (checked,) = (each for each in finish(two) if isinstance(each, Checked))
    assert (checked.tokens, checked.drawn) == (told.tokens, told.drawn)


def test_as_many_guesses_are_refused_beside_others_as_alone(engine):
    """All of them are decoded together, wherever the batch is full."""
    refused = []
    for seats in (1, 8):
        made = engine(seats, streams=8, favour=NO_END)
        tokens = made.model.tokenize(TEXT)
        for seat in range(1, seats):
            made.submit(seat, Read(tokens * 2, (1,), (0,)))
        made.submit(0, Check(tokens[:62], Sampling(), 0, "\n\n", 30, guesses=(Guess(0),) * 9))
        refused += [told.refused for told in finish(made) if isinstance(told, Checked)]
    assert refused == [9, 9]


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_memory_that_can_not_be_cut_is_read_as_ever(kind, engine):
    assert not engine(kind=kind).context.exact

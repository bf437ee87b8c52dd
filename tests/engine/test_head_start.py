"""A state that is read where the next step begins: nothing is decoded twice, and the text stays the same."""

import numpy as np
import pytest

from rsd_cli.engine.jobs import Observed, Read, Write, Written
from rsd_cli.engine.sampling import Sampling
from tests.engine.driving import finish, streamed

PROMPT = "The cat is on the mat. How many cats are there?"
STEPS, LENGTH = 4, 9


def next_step(context, number):
    return Write(tuple(context), Sampling(temperature=1.0), 70 + number, "\0", LENGTH)


def written_by(engine) -> Written:
    last = finish(engine)[-1]
    assert isinstance(last, Written)
    return last


def state_by(engine) -> np.ndarray:
    last = finish(engine)[-1]
    assert isinstance(last, Observed)
    assert last.hidden is not None
    return last.hidden


def write_steps(engine, seat=0, *, observe):
    """A few steps of the same seeds, with or without reading the state behind each."""
    context, texts = engine.model.tokenize(PROMPT), []
    for number in range(STEPS):
        engine.submit(seat, next_step(context, number))
        updates = finish(engine)
        written = updates[-1]
        assert isinstance(written, Written)
        assert streamed(updates) == written.text
        texts.append(written.text)
        context = [*context, *written.tokens]
        if observe and number < STEPS - 1:
            boundaries = (len(context) - 1, len(context))
            job = Read(context, (), boundaries, hidden=True, ahead=next_step(context, number + 1))
            engine.submit(seat, job)
            state_by(engine)
    return texts, context


@pytest.mark.parametrize(("kind", "fed_again"), [("llama", 0), ("mamba", 0), ("hybrid", STEPS - 1)])
def test_reading_states_changes_neither_the_text_nor_the_tokens_decoded(tiny_engine, kind, fed_again):
    """The hybrid is an LFM2, whose logits can't be used beside a state: it reads the separator once more."""
    plain, watched = tiny_engine(kind), tiny_engine(kind)
    texts, context = write_steps(plain, observe=False)
    assert write_steps(watched, observe=True)[0] == texts
    usages = [engine.release(0, context).usage for engine in (plain, watched)]
    assert usages[0].decoded + fed_again == usages[1].decoded
    assert usages[0].generated == usages[1].generated > STEPS


def test_a_head_start_that_is_not_taken_costs_nothing(tiny_engine):
    engine = tiny_engine()
    context = engine.model.tokenize(PROMPT)
    engine.submit(0, next_step(context, 0))
    written = written_by(engine)
    judged = [*context, *written.tokens]
    engine.submit(0, Read(judged, (), (len(judged),), hidden=True, ahead=next_step(judged, 1)))
    finish(engine)
    other = [*context, *engine.model.tokenize("There are two cats.")]
    engine.submit(0, next_step(other, 1))
    finish(engine)
    fresh = tiny_engine()
    fresh.submit(0, next_step(other, 1))
    assert engine.seats[0].tokens == finish_tokens(fresh)
    usage = engine.release(0, engine.seats[0].tokens).usage
    assert usage.generated == 2 * LENGTH


def finish_tokens(engine):
    finish(engine)
    return engine.seats[0].tokens


def test_a_head_start_is_for_its_own_job_only(tiny_engine):
    engine, fresh = tiny_engine(), tiny_engine()
    context = tuple(engine.model.tokenize(PROMPT))
    engine.submit(0, Read(context, (), (len(context),), hidden=True, ahead=next_step(context, 1)))
    finish(engine)
    engine.submit(0, next_step(context, 2))
    fresh.submit(0, next_step(context, 2))
    assert written_by(engine).tokens == written_by(fresh).tokens


def test_a_first_token_that_ends_the_job_is_told(tiny_engine):
    engine = tiny_engine()
    context = tuple(engine.model.tokenize(PROMPT))
    ahead = Write(context, Sampling(), 0, "\0", 1)
    engine.submit(0, Read(context, (), (len(context),), hidden=True, ahead=ahead))
    finish(engine)
    engine.submit(0, ahead)
    assert engine.busy
    assert isinstance(finish(engine)[-1], Written)


def test_a_step_knows_the_mean_of_its_states(tiny_engine):
    engine = tiny_engine(n_seats=2)
    context = engine.model.tokenize(PROMPT)
    engine.submit(0, Write(context, Sampling(), 0, "\0", 5, states=True))
    written, states = written_by(engine), []
    for end in range(1, 5):
        text = [*context, *written.tokens[:end]]
        engine.submit(1, Read(text, (), (len(text),), hidden=True))
        states.append(state_by(engine))
    assert written.state is not None
    np.testing.assert_allclose(written.state, np.mean(states, axis=0), atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "mamba", "hybrid"])
def test_asking_for_states_changes_no_text(kind, tiny_engine):
    """The hybrid, whose logits are others beside states, tells none."""
    written = []
    for states in (False, True):
        engine = tiny_engine(kind)
        context = engine.model.tokenize(PROMPT)
        sampling = Sampling(temperature=1.0)
        engine.submit(0, Write(context, sampling, 3, "\0", 24, watch=True, states=states))
        written.append(written_by(engine))
    plain, watched = written
    assert (watched.tokens, watched.drawn) == (plain.tokens, plain.drawn)
    assert (watched.state is None) == (kind == "hybrid")


def test_watched_tokens_have_probabilities_and_entropies(tiny_engine):
    engine = tiny_engine()
    context = engine.model.tokenize(PROMPT)
    engine.submit(0, Write(context, Sampling(temperature=1.0), 3, "\0", 6, watch=True))
    written = written_by(engine)
    assert len(written.drawn) == len(written.tokens) == 6
    assert written.logprob == pytest.approx(sum(token.logprob for token in written.drawn))
    assert all(token.logprob < 0 < token.entropy for token in written.drawn)

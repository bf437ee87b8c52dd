"""Hidden states: read for one token, without changing what comes after."""

import numpy as np
import pytest

from rsd_cli.engine.jobs import Observed, Read

TEXT = "The cat is on the mat.\n\nThe dog is not."


def observed(engine, seat, job):
    engine.submit(seat, job)
    while engine.busy:
        for update in engine.step():
            if isinstance(update, Observed):
                seen = update
    return seen


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_state_is_the_same_incrementally_and_from_scratch(tiny_engine, kind):
    engine = tiny_engine(kind, n_seats=2)
    ids = engine.model.tokenize(TEXT)
    observed(engine, 0, Read(ids[:5], (), (5,), hidden=True))
    grown = observed(engine, 0, Read(ids, (), (len(ids),), hidden=True)).hidden
    fresh = observed(engine, 1, Read(ids, (), (len(ids),), hidden=True)).hidden
    assert grown.shape == (engine.model.n_embd,)
    assert np.abs(fresh).max() > 0
    np.testing.assert_allclose(grown, fresh, atol=1e-3)


def test_reading_a_state_leaves_the_logits_as_they_were(tiny_engine):
    engine = tiny_engine(n_seats=2)
    ids = engine.model.tokenize(TEXT)
    tokens = tuple(ids[:4])
    observed(engine, 0, Read(ids[:6], (), (6,), hidden=True))
    after = observed(engine, 0, Read(ids, tokens, (len(ids),))).logits
    plain = observed(engine, 1, Read(ids, tokens, (len(ids),))).logits
    np.testing.assert_allclose(after, plain, atol=1e-3)


def test_a_state_costs_no_token_more(tiny_engine):
    engine = tiny_engine()
    ids = engine.model.tokenize(TEXT)
    observed(engine, 0, Read(ids, (), (len(ids),), hidden=True))
    assert engine.release(0, ids).usage.fed == len(ids)


def test_states_are_read_beside_a_seat_that_writes(tiny_engine):
    from rsd_cli.engine.jobs import Write, Written
    from rsd_cli.engine.sampling import Sampling

    engine = tiny_engine(n_seats=2)
    ids = engine.model.tokenize(TEXT)
    engine.submit(0, Write(ids, Sampling(), 0, "\x00", 12))
    engine.submit(1, Read(ids, (), (len(ids),), hidden=True))
    done = []
    while engine.busy:
        done += [update for update in engine.step() if isinstance(update, (Observed, Written))]
    assert {type(update) for update in done} == {Observed, Written}

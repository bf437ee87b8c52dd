"""An abort acts at once, also in the middle of a long prompt, and leaves a working engine."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rsd_cli.engine.jobs import Read
from rsd_cli.engine.llama import DecodeAborted, Model
from tests.engine.driving import NO_END, job, logits_after

SLOW = {"n_embd": 256, "n_layer": 8, "n_ctx_train": 16384}
PROMPT = 4000


class Flag:
    """Raised some time after it is asked to."""

    def __init__(self) -> None:
        self.raised_at = 0.0

    def __call__(self) -> bool:
        return self.raised_at > 0

    def raise_in(self, seconds: float) -> None:
        threading.Timer(seconds, self._raise).start()

    def _raise(self) -> None:
        self.raised_at = time.perf_counter()


def tokens(engine, n):
    return (engine.model.tokenize("Hello World ") * n)[:n]


def test_a_flag_stops_a_long_prompt_long_before_its_end(tiny_engine):
    """Measured against the whole prompt in the same minute; the best of five, since a busy machine may stall."""
    shares = []
    for _ in range(5):
        flag = Flag()
        engine = tiny_engine(n_ctx=8192, n_batch=4096, aborted=flag, **SLOW)
        started = time.perf_counter()
        logits_after(engine, tokens(engine, PROMPT))
        whole = time.perf_counter() - started
        engine.release(0)
        engine.submit(0, Read(tokens(engine, PROMPT)[1:], (1,), (0,)))  # nothing of it is in the memory
        flag.raise_in(whole / 10)
        with pytest.raises(DecodeAborted):
            engine.step()
        shares.append((time.perf_counter() - flag.raised_at) / whole)
        if shares[-1] < 0.25:
            return
    raise AssertionError(shares)


@pytest.mark.parametrize("kind", ["llama", "mamba", "hybrid"])
def test_the_engine_works_after_an_abort(kind, tiny_engine):
    flag = Flag()
    options = SLOW if kind == "llama" else {}
    engine = tiny_engine(kind, n_ctx=1024, n_batch=512, aborted=flag, **options)
    first = tokens(engine, 400)
    logits_after(engine, first)
    flag._raise()
    engine.submit(0, Read([*first, *tokens(engine, 300)], (1,), (0,)))
    with pytest.raises(DecodeAborted):
        engine.step()
    flag.raised_at = 0.0
    engine.release(0)
    other = engine.model.tokenize("The sum of 1 and 2")
    fresh = tiny_engine(kind, n_ctx=1024, n_batch=512, **options)
    assert np.abs(logits_after(engine, other) - logits_after(fresh, other)).max() < 1e-3


@pytest.mark.parametrize("kind", ["llama", "mamba", "hybrid"])
def test_an_aborted_job_can_be_replaced_without_giving_up_the_seat(kind, tiny_engine):
    flag = Flag()
    engine = tiny_engine(kind, n_ctx=1024, n_batch=512, aborted=flag)
    first = tokens(engine, 20)
    logits_after(engine, first)
    flag._raise()
    engine.submit(0, Read([*first, *tokens(engine, 300)], (1,), (0,)))
    with pytest.raises(DecodeAborted):
        engine.step()
    flag.raised_at = 0.0
    other = [*first, *engine.model.tokenize("The sum of 1 and 2")]
    fresh = tiny_engine(kind, n_ctx=1024, n_batch=512)
    assert np.abs(logits_after(engine, other) - logits_after(fresh, other)).max() < 1e-3


def test_an_abort_while_writing_keeps_what_was_written(tiny_engine):
    flag = Flag()
    engine = tiny_engine(aborted=flag, favour=NO_END)
    engine.submit(0, job(engine.model.tokenize("Hello"), max_tokens=100))
    for _ in range(10):
        engine.step()
    flag._raise()
    with pytest.raises(DecodeAborted):
        engine.step()
    partial = engine.partial(0)
    assert partial is not None
    assert len(partial.tokens) == 10


def test_a_flag_stops_loading(tiny):
    with pytest.raises(DecodeAborted):
        Model(tiny(), aborted=lambda: True)

"""Seats and streams: prefixes are read once, waiting memories are parked, and gaps are padded."""

from __future__ import annotations

import numpy as np
import pytest

from rsd_cli.engine.context import Context, ContextOptions
from rsd_cli.engine.jobs import Read, Written
from rsd_cli.engine.seats import Engine
from tests.engine.driving import NO_END, finish, job, logits_after, write

CLOSE = 1e-3
SYSTEM = "Hello World. The sum of all numbers is the answer we so then have, step by step and word by word. "


@pytest.fixture
def engine(tiny_model):
    """engine(seats, streams, **model): an engine with fewer streams than seats."""
    made = []

    def make(seats, streams=0, forgets=False, **model):
        options = ContextOptions(512, seats, 128, threads=1, forgets=forgets, n_streams=streams)
        made.append(Engine(tiny_model(**model), options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def decodes(monkeypatch):
    """The rows of every llama_decode from now on."""
    seen = []
    decode = Context.decode

    def watched(self, rows, *, hidden=False, fill=1):
        seen.append(list(rows))
        return decode(self, rows, hidden=hidden, fill=fill)

    monkeypatch.setattr(Context, "decode", watched)
    return seen


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_seats_with_fewer_streams_write_what_each_writes_alone(streams, engine):
    many = engine(5, streams)
    contexts = [many.model.tokenize(f"{SYSTEM} Hello {i} World. The number {i * i} is") for i in range(5)]
    for i, context in enumerate(contexts):
        many.submit(i, job(context, max_tokens=15))
    written = {update.seat: update.text for update in finish(many) if isinstance(update, Written)}
    for i, context in enumerate(contexts):
        assert written[i] == write(engine(1), context, max_tokens=15).text


def test_a_seat_that_had_to_give_up_its_stream_reads_nothing_again(engine):
    many = engine(3, 1, favour=NO_END)
    contexts = [many.model.tokenize(f"{SYSTEM} Number {i}: ") for i in range(3)]
    for _ in range(3):
        for i, context in enumerate(contexts):
            many.submit(i, job(context, max_tokens=5))
        for update in finish(many):
            if isinstance(update, Written):
                contexts[update.seat] = [*contexts[update.seat], *update.tokens]
    for i, context in enumerate(contexts):
        usage = many.seats[i].usage
        assert usage.generated == 15
        assert usage.fed + usage.generated <= len(context) + 3  # at most one token again for each job
        assert usage.discarded == 0
    assert sum(seat.stream is not None for seat in many.seats) == 1


def test_what_was_parked_computes_what_it_computed_before(engine):
    many = engine(2, 1)
    context = many.model.tokenize(SYSTEM)
    expected = logits_after(engine(1), [*context, 7])
    logits_after(many, context)
    many.submit(1, job(many.model.tokenize("Hello World"), max_tokens=3))  # takes the only stream
    finish(many)
    assert many.seats[0].parked is not None
    assert np.abs(logits_after(many, [*context, 7]) - expected).max() < CLOSE
    assert many.seats[0].usage.fed == len(context) + 1


def test_a_parked_memory_can_be_rewound(engine):
    many = engine(2, 1)
    context = many.model.tokenize(SYSTEM)
    logits_after(many, context)
    many.submit(1, job(many.model.tokenize("Hello World"), max_tokens=3))
    finish(many)
    shorter = [*context[:20], 9, 8]
    assert np.abs(logits_after(many, shorter) - logits_after(engine(1), shorter)).max() < CLOSE
    assert many.seats[0].usage.fed == len(context) + 2


def test_a_prefix_that_seats_share_is_read_once_and_copied(engine):
    many = engine(4)
    prefix = many.model.tokenize(SYSTEM)
    contexts = [[*prefix, *many.model.tokenize(f"What is {i}?")] for i in range(4)]
    for i, context in enumerate(contexts):
        many.submit(i, Read(context, (1, 2), (len(context),)))
    observed = {update.seat: update.logits for update in finish(many) if hasattr(update, "logits")}
    fed = [seat.usage.fed for seat in many.seats]
    reused = [seat.usage.reused for seat in many.seats]
    assert fed[0] == len(contexts[0])
    assert all(few <= len(context) - len(prefix) for few, context in zip(fed[1:], contexts[1:], strict=True))
    assert all(n >= len(prefix) for n in reused[1:])
    for i, context in enumerate(contexts):
        alone = logits_after(engine(1), context)[[1, 2]]
        assert np.abs(np.array(observed[i]) - alone).max() < CLOSE


@pytest.mark.parametrize(("streams", "forgets"), [(0, False), (0, True), (1, False), (2, False)])
def test_what_one_seat_of_a_trajectory_knows_its_siblings_copy(streams, forgets, engine):
    """However short it is, also where it is parked, and where nothing is shared between trajectories."""
    many = engine(3, streams, forgets, favour=NO_END)
    context = many.model.tokenize("Hello World. The sum is")
    for round_ in range(3):
        for i in range(3):
            many.submit(i, job(context, max_tokens=5, seed=i, sampling={"temperature": 1.0}), (0, 1, 2))
        written = {update.seat: update for update in finish(many) if isinstance(update, Written)}
        context = [*context, *written[round_].tokens]
    assert sum(seat.usage.generated for seat in many.seats) == 45
    prompt = len(context) - 15
    assert sum(seat.usage.fed for seat in many.seats) <= prompt + 3 * 3
    again = logits_after(engine(1, favour=NO_END), [*context, 7])
    for i in range(3):
        many.submit(i, Read([*context, 7], tuple(range(many.model.n_vocab)), (len(context),)), (0, 1, 2))
    for update in finish(many):
        if hasattr(update, "logits"):
            assert np.abs(np.array(update.logits) - again).max() < CLOSE


def test_what_was_copied_from_a_sibling_is_discarded_once(engine):
    many = engine(2, favour=NO_END)
    context = many.model.tokenize(SYSTEM)
    for i in range(2):
        many.submit(i, Read([*context, 5, 6, 7], (1,), (len(context),)), (0, 1))
    finish(many)
    seats = [many.release(i, context) for i in range(2)]
    assert sum(seat.usage.fed for seat in seats) == len(context) + 3 + 1
    assert sum(seat.usage.discarded for seat in seats) == 4, "the last token was read by both"


def test_a_free_seats_memory_serves_the_next_trajectory_that_begins_alike(engine):
    one = engine(1)
    prefix = one.model.tokenize(SYSTEM)
    first, second = ([*prefix, *one.model.tokenize(text)] for text in ("What is 1?", "Then 2?"))
    logits_after(one, first)
    one.release(0, first)
    assert np.abs(logits_after(one, second) - logits_after(engine(1), second)).max() < CLOSE
    usage = one.seats[0].usage
    assert usage.fed == len(second) - len(prefix)
    assert usage.reused == len(prefix)
    assert usage.discarded == 0


def test_an_engine_that_forgets_reads_everything_anew(engine):
    one = engine(2, forgets=True)
    context = one.model.tokenize(SYSTEM)
    for seat in (0, 0, 1):
        one.submit(seat, Read(context, (1,), (len(context),)))
        finish(one)
        assert one.release(seat, context).usage.fed == len(context)


def test_gaps_between_busy_seats_are_padded_and_leave_no_trace(engine, monkeypatch):
    many = engine(9, favour=NO_END)
    contexts = [many.model.tokenize(f"Hello {i} World") for i in range(9)]
    for i, context in enumerate(contexts):
        many.submit(i, Read(context, (1,), (len(context),)))
    finish(many)
    seen = decodes(monkeypatch)
    for i in (1, 4, 6):
        many.submit(i, job([*contexts[i], 5], max_tokens=4))
    finish(many)
    for rows in seen[1:]:  # the first reads
        assert [row.stream for row in rows] == list(range(1, 7))
        assert [row.stream for row in rows if row.output] == [1, 4, 6]
    for i in (2, 5):
        alone = engine(1, favour=NO_END)
        logits_after(alone, contexts[i])
        expected = logits_after(alone, [*contexts[i], 6])
        many.submit(i, Read([*contexts[i], 6], tuple(range(many.model.n_vocab)), (len(contexts[i]),)))
        got = next(np.array(update.logits) for update in finish(many) if hasattr(update, "logits"))
        assert np.abs(got - expected).max() < CLOSE
    assert all(seat.usage.generated in (0, 4) for seat in many.seats)


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_models_that_can_not_be_cut_keep_a_stream_for_each_seat(kind, tiny_model):
    engine = Engine(tiny_model(kind), ContextOptions(256, 3, 64, threads=1, n_streams=1))
    assert engine.context.n_streams == 3
    context = engine.model.tokenize(SYSTEM)
    for i in range(3):
        engine.submit(i, job([*context, i + 3], max_tokens=5))
    written = {update.seat: update.text for update in finish(engine) if isinstance(update, Written)}
    engine.close()
    assert len(written) == 3


def test_a_long_prompt_does_not_stall_seats_whose_states_are_read(engine):
    """Reading and the decodes that give states take turns."""
    many = engine(3, favour=NO_END)
    long = many.model.tokenize("Hello World " * 120)
    short = many.model.tokenize("Hello")
    many.submit(0, Read(long, (1,), (len(long),)))
    done = 0
    while many.seats[0].job:
        if not many.seats[1].job:
            many.submit(1, Read([*short, *range(5, 6 + done)], (), (1,), hidden=True))
            done += 1
        if not many.seats[2].job:
            many.submit(2, job(short, max_tokens=50))
        many.step()
    assert done >= 2
    assert len(many.seats[2].tokens) - len(short) >= 3

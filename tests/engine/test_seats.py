"""Seats: what is fed, what is reused, and where a step ends."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from rsd_cli.engine.jobs import ContextOverflow, Read, Written
from rsd_cli.errors import EngineError
from tests.engine.driving import NO_END, fed_tokens, finish, job, logits_after, streamed, text_of, write

ALL = ("llama", "mamba", "hybrid")
CLOSE = 1e-3


def prompt(engine, text="Hello World. The sum of 1 and 2 is the answer we so then has"):
    return engine.model.tokenize(text)


def test_a_changed_tail_is_all_that_is_fed_again(tiny_engine):
    engine = tiny_engine()
    first = prompt(engine)
    logits_after(engine, first)
    before = engine.seats[0].usage
    changed = [*first[:-3], *engine.model.tokenize(" number = 7")]
    logits = logits_after(engine, changed)
    after = engine.seats[0].usage
    kept = len(first) - 3
    assert after.fed - before.fed == len(changed) - kept
    assert after.reused - before.reused == kept
    assert after.discarded - before.discarded == 3
    assert np.abs(logits - logits_after(tiny_engine(), changed)).max() < CLOSE


@pytest.mark.parametrize("kind", ALL)
def test_the_same_context_again_feeds_its_last_token_at_most_one_before(kind, tiny_engine):
    engine = tiny_engine(kind)
    context = prompt(engine)
    first = logits_after(engine, context)
    assert np.abs(first - logits_after(engine, context)).max() < CLOSE
    if kind == "llama":
        assert engine.seats[0].usage.fed == len(context) + 1


@pytest.mark.parametrize("kind", ALL)
def test_a_shorter_context_gives_what_a_fresh_engine_gives(kind, tiny_engine):
    engine = tiny_engine(kind)
    context = prompt(engine)
    logits_after(engine, context)
    shorter = context[:-5]
    assert np.abs(logits_after(engine, shorter) - logits_after(tiny_engine(kind), shorter)).max() < CLOSE


@pytest.mark.parametrize("kind", ALL)
def test_a_token_sampled_but_not_decoded_is_not_counted_as_fed(kind, tiny_engine):
    engine = tiny_engine(kind, seed=1)
    context = prompt(engine)
    step = write(engine, context)
    assert step.ended in ("separator", "max_tokens")
    assert engine.seats[0].usage.fed == len(context)
    write(engine, [*context, *step.tokens])
    assert engine.seats[0].usage.fed == len(context)
    assert engine.seats[0].usage.discarded == 0


def test_usage_counts_every_token_that_was_decoded_once(tiny_engine):
    engine = tiny_engine(seed=1)
    context = prompt(engine)
    generated = 0
    for _ in range(3):
        step = write(engine, context, max_tokens=10)
        generated += len(step.tokens)
        context = [*context, *step.tokens]
        if step.ended == "eog":
            break
    seat = engine.release(0, context)
    assert seat.usage.generated == generated
    assert seat.usage.fed == len(context) - generated
    assert seat.usage.discarded == 0


def test_released_tokens_that_are_not_in_the_final_text_are_discarded(tiny_engine):
    engine = tiny_engine(seed=1)
    context = prompt(engine)
    step = write(engine, context)
    assert engine.release(0, context).usage.discarded == len(step.tokens)


def test_a_released_seat_is_as_new(tiny_engine):
    engine = tiny_engine()
    write(engine, prompt(engine))
    engine.release(0)
    other = engine.model.tokenize("number equals sum")
    assert np.abs(logits_after(engine, other) - logits_after(tiny_engine(), other)).max() < CLOSE
    assert engine.seats[0].usage.fed == len(other)


@pytest.mark.parametrize("kind", ALL)
def test_after_rejections_the_logits_equal_those_from_scratch(kind, tiny_engine):
    engine = tiny_engine(kind, seed=2)
    context = prompt(engine)
    for i in range(4):
        step = write(engine, context, max_tokens=12, sampling={"temperature": 0.9}, seed=i)
        rewrite = engine.model.tokenize(f"So number {i} is the answer.\n\n")
        context += rewrite if i % 2 else list(step.tokens)
    logits = logits_after(engine, context)
    assert np.abs(logits - logits_after(tiny_engine(kind, seed=2), context)).max() < CLOSE


@pytest.mark.parametrize("kind", ALL)
def test_a_judges_question_is_cut_off_again(kind, tiny_engine):
    engine = tiny_engine(kind)
    solution = prompt(engine)
    question = engine.model.tokenize("\n\nIs the step of the answer so?")
    for _ in range(3):
        solution += engine.model.tokenize("So 1 + 2 = 3.\n\n")
        logits = logits_after(engine, [*solution, *question], boundary=len(solution))
    fresh = logits_after(tiny_engine(kind), [*solution, *question])
    assert np.abs(logits - fresh).max() < CLOSE
    usage = engine.seats[0].usage
    assert usage.fed <= len(solution) + 3 * len(question)
    assert usage.discarded == 2 * len(question)


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_a_model_that_cannot_be_cut_rereads_one_token_after_a_rejection(kind, tiny_engine):
    engine = tiny_engine(kind, seed=2)
    context = prompt(engine)
    write(engine, context)
    before = engine.seats[0].usage.fed
    rewrite = engine.model.tokenize("So the number is 3.\n\n")
    logits_after(engine, [*context, *rewrite])
    assert engine.seats[0].usage.fed - before <= len(rewrite) + 1


def test_a_token_that_holds_the_separator_ends_the_step(tiny_engine):
    engine = tiny_engine(favour={".\n\n": 300.0})
    step = write(engine, prompt(engine))
    assert (step.text, step.ended, len(step.tokens)) == (".\n\n", "separator", 1)


def test_a_separator_made_of_two_tokens_ends_the_step(tiny_engine):
    engine = tiny_engine("spm-bytes", favour={"<0x0A>": 4.5})
    step = write(engine, prompt(engine), max_tokens=300)
    assert step.ended == "separator"
    assert step.text.strip()
    assert step.text.endswith("\n\n")
    assert len(step.tokens) > 2


def test_a_blank_step_does_not_end(tiny_engine):
    engine = tiny_engine(favour={"\n\n": 300.0})
    step = write(engine, prompt(engine), max_tokens=7)
    assert (step.text, step.ended) == ("\n\n" * 7, "max_tokens")


def test_blank_lines_before_the_first_word_do_not_end_the_step(tiny_engine):
    engine = tiny_engine("spm-bytes", favour={"<0x0A>": 6.0})
    step = write(engine, prompt(engine), max_tokens=300)
    assert step.text.startswith("\n\n"), "the test needs a step that begins with blank lines"
    assert step.ended == "separator"
    assert step.text.endswith("\n\n")


def test_an_end_of_generation_ends_the_step_without_text(tiny_engine):
    engine = tiny_engine(favour={"<eos>": 300.0})
    step = write(engine, prompt(engine))
    assert (step.text, step.ended, len(step.tokens)) == ("", "eog", 1)
    assert engine.model.ends_generation(step.tokens[0])


def test_a_step_ends_at_its_token_limit(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    step = write(engine, prompt(engine), max_tokens=5)
    assert (step.ended, len(step.tokens)) == ("max_tokens", 5)


@pytest.mark.parametrize("kind", ALL)
def test_a_full_context_ends_the_step(kind, tiny_engine):
    engine = tiny_engine(kind, n_ctx=256, favour=NO_END)
    context = prompt(engine)
    step = write(engine, context, max_tokens=10_000, separator="nothing like this")
    assert step.ended == "context"
    assert len(context) + len(step.tokens) == engine.n_ctx


def test_the_streamed_text_is_the_steps_text(tiny_engine):
    engine = tiny_engine(seed=1)
    engine.submit(0, job(prompt(engine)))
    updates = finish(engine)
    written = updates[-1]
    assert isinstance(written, Written)
    assert streamed(updates) == written.text == text_of(engine.model, written.tokens)


def test_a_character_split_over_tokens_arrives_whole(tiny_engine):
    """Two bytes of one letter are likely; some seeds draw them one behind the other."""
    engine = tiny_engine("spm-bytes", favour={"<0xC3>": 7.0, "<0xA9>": 7.0, "<0x0A>": -50.0, "<eos>": -50.0})
    whole = 0
    for seed in range(60):
        engine.submit(0, job(prompt(engine), sampling={"temperature": 1.0}, seed=seed, max_tokens=6))
        updates = finish(engine)
        written = updates[-1]
        assert isinstance(written, Written)
        raw = b"".join(engine.model.piece(token) for token in written.tokens)
        assert written.text == streamed(updates) == raw.decode("utf-8", "replace")
        whole += "é" in written.text
    assert whole


def test_an_unfinished_character_is_replaced_only_at_the_end(tiny_engine):
    engine = tiny_engine("spm-bytes", favour={"<0xE2>": 300.0})
    engine.submit(0, job(prompt(engine), max_tokens=1))
    updates = finish(engine)
    assert isinstance(updates[-1], Written)
    assert updates[-1].text == "\N{REPLACEMENT CHARACTER}"


def test_a_long_prompt_is_fed_in_batches_and_reported(tiny_engine):
    engine = tiny_engine(n_batch=32, n_ctx=1024)
    context = engine.model.tokenize("Hello World " * 40)
    engine.submit(0, Read(context, (0,), (len(context),)))
    done = fed_tokens(finish(engine))
    assert done == list(range(32, len(context), 32))


def test_many_seats_write_what_one_seat_writes(tiny_engine):
    contexts = [f"Hello {i} World. The answer number {i * i} is" for i in range(4)]
    engine, alone = tiny_engine(n_seats=4), tiny_engine()
    for i, text in enumerate(contexts):
        engine.submit(i, job(engine.model.tokenize(text), max_tokens=20))
    written = {update.seat: update for update in finish(engine) if isinstance(update, Written)}
    for i, text in enumerate(contexts):
        expected = write(alone, alone.model.tokenize(text), max_tokens=20)
        assert written[i].text == expected.text
        alone.release(0)


def test_readers_and_writers_share_a_decode(tiny_engine):
    engine = tiny_engine(n_seats=2, favour=NO_END)
    engine.submit(0, job(prompt(engine), max_tokens=30))
    engine.step()
    long = engine.model.tokenize("Hello World " * 100)
    engine.submit(1, Read(long, (1, 2), (len(long),)))
    sampled = 0
    while engine.seats[1].job:
        sampled += sum(update.seat == 0 for update in engine.step())
    assert sampled >= 2
    finish(engine)


MORE_SEATS_THAN_ROWS = """
import sys
from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.llama import Model
from rsd_cli.engine.jobs import Observed, Read
from rsd_cli.engine.seats import Engine
from rsd_cli.errors import RSDError
try:
    engine = Engine(Model(sys.argv[1]), ContextOptions(n_ctx=256, n_seats=40, n_batch=32, threads=1))
except RSDError as error:
    sys.exit(print("refused:", error.message))
for i in range(40):
    engine.submit(i, Read(engine.model.tokenize(f"Hello {i}"), (1,), (1,)))
seen = set()
while engine.busy:
    seen |= {update.seat for update in engine.step() if isinstance(update, Observed)}
print("seen:", len(seen))
"""


def test_more_seats_than_the_batch_has_rows_all_get_their_turn_or_are_refused(tiny):
    """In a process of its own, since llama.cpp may abort."""
    command = [sys.executable, "-c", MORE_SEATS_THAN_ROWS, str(tiny())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("refused:") or done.stdout == "seen: 40\n"


def test_a_context_that_does_not_fit_says_by_how_much(tiny_engine):
    engine = tiny_engine(n_ctx=256)
    context = [5] * (engine.n_ctx + 7)
    with pytest.raises(ContextOverflow, match=rf"263 tokens long, 7 more than the context of {256}"):
        engine.submit(0, Read(context, (1,), (0,)))
    assert not engine.busy


def test_a_context_without_room_for_one_token_never_says_zero_too_many(tiny_engine):
    engine = tiny_engine(n_ctx=256)
    with pytest.raises(ContextOverflow) as caught:
        engine.submit(0, job([5] * engine.n_ctx))
    assert " 0 more" not in caught.value.message


@pytest.mark.parametrize("kind", ["llama", "other", "spm", "mamba", "hybrid"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_compute_nan_are_an_engine_error(kind, temperature, tiny_engine):
    engine = tiny_engine(kind, nan=True)
    with pytest.raises(EngineError, match="weights are damaged") as caught:
        write(engine, prompt(engine), sampling={"temperature": temperature})
    assert caught.value.exit_code == 6


def test_a_nan_that_is_read_is_for_the_reader_to_judge(tiny_engine):
    engine = tiny_engine(nan=True)
    assert all(map(math.isnan, logits_after(engine, prompt(engine))))


def test_time_is_counted_for_reading_and_for_writing(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    write(engine, prompt(engine), max_tokens=10)
    spent = engine.seats[0].time
    assert spent.prompt_ms > 0
    assert spent.decode_ms > 0


def test_decodes_that_only_write_are_timed_by_their_size(tiny_engine):
    alone = tiny_engine(favour=NO_END)
    write(alone, prompt(alone), max_tokens=10)
    assert alone.pace.decodes == {1: 9}, "the first token came with the prompt"
    assert alone.pace.spent[1] * 1000 == pytest.approx(alone.seats[0].time.decode_ms)
    engine = tiny_engine(n_seats=3, favour=NO_END)
    for seat in range(3):
        engine.submit(seat, job(prompt(engine), max_tokens=10))
    finish(engine)
    assert max(engine.pace.decodes, key=lambda n: engine.pace.decodes[n]) == 3


def test_the_last_token_of_the_own_step_before_is_no_reading(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = prompt(engine)
    first = write(engine, context, max_tokens=5)
    read = engine.seats[0].time.prompt_ms
    write(engine, [*context, *first.tokens], max_tokens=5)
    assert engine.seats[0].time.prompt_ms == read


@pytest.mark.parametrize("first", [1, 3])
def test_a_step_that_is_begun_goes_on_as_if_it_had_not_stopped(first, tiny_engine):
    engine, alone = tiny_engine(), tiny_engine()
    context = engine.model.tokenize("Hello World. The sum is")
    whole = write(alone, context, max_tokens=20)
    begun = write(engine, context, max_tokens=first)
    rest = write(engine, [*context, *begun.tokens], max_tokens=20, begun=first)
    assert (rest.tokens, rest.text, rest.ended) == (whole.tokens, whole.text, whole.ended)
    assert engine.seats[0].usage.generated == len(whole.tokens)
    assert engine.seats[0].usage.fed == alone.seats[0].usage.fed


def test_a_separator_at_the_last_token_is_a_separator(tiny_engine):
    engine = tiny_engine(favour={"<eos>": -50.0, ".\n\n": 30.0})
    context = engine.model.tokenize("Hello World")
    assert write(engine, context, max_tokens=1).ended == "separator"
    assert write(engine, context, max_tokens=5).ended == "separator"

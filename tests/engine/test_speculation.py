"""Tokens that one model proposes and another checks: what is accepted, what is drawn instead, and what it costs."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from rsd_cli.engine.jobs import Check, Checked, Propose, Proposed, Read
from rsd_cli.engine.sampling import Sampling
from rsd_cli.engine.speculation import Chances, Draws, Guess, check_pair
from rsd_cli.errors import EngineError, ModelError
from tests.engine.driving import NO_END, finish, logits_after, streamed, write

TEXT = "Hello World. The sum of 1 and 2 is"
OPEN = {"temperature": 1.0, "top_k": 0}
FLAT = {"logits": 0.4, "favour": NO_END}  # two such models agree in half of what they draw


def options(**more):
    sampling = Sampling(**more.pop("sampling", {}))
    return {"sampling": sampling, "seed": 0, "separator": "\n\n", "max_tokens": 40} | more


def propose(engine, context, seat=0, p_min=0.0, **more):
    engine.submit(seat, Propose(context, **options(**more), p_min=p_min))
    (proposed,) = finish(engine)
    assert isinstance(proposed, Proposed)
    return proposed.guesses


def check(engine, context, guesses, seat=0, **more):
    guesses = tuple(guess if isinstance(guess, Guess) else Guess(guess) for guess in guesses)
    engine.submit(seat, Check(context, **options(**more), guesses=guesses))
    checked = finish(engine)[-1]
    assert isinstance(checked, Checked)
    return checked


def speculated(draft, target, context, pairs, n, seed, **more):
    """`n` tokens for each of `pairs` seats, by proposals of `k` tokens (more); gives a list for each seat."""
    k: int = more.pop("k")
    p_min: float = more.pop("p_min", 0.0)
    tokens: list[list[int]] = [[] for _ in range(pairs)]
    seeds = random.Random(seed)
    while any(len(each) < n for each in tokens):
        open_ = [seat for seat, each in enumerate(tokens) if len(each) < n]
        for seat in open_:
            job = options(seed=seeds.getrandbits(32), **more | {"max_tokens": k})
            draft.submit(seat, Propose([*context, *tokens[seat]], **job, p_min=p_min))
        proposed = {each.seat: each.guesses for each in finish(draft) if isinstance(each, Proposed)}
        for seat in open_:
            job = options(seed=seeds.getrandbits(32), **more | {"max_tokens": n - len(tokens[seat])})
            target.submit(seat, Check([*context, *tokens[seat]], **job, guesses=proposed[seat]))
        for each in finish(target):
            if isinstance(each, Checked):
                tokens[each.seat] += each.tokens
    return tokens


def chances_after(engine, context, top_k=0):
    """The exact distribution behind a context at temperature 1."""
    logits = logits_after(engine, context).astype(np.float64)
    if top_k:
        logits[logits < np.sort(logits)[-top_k]] = -np.inf
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def surprise(counts, expected):
    """Pearson's chi-square as a standard normal deviate (Wilson and Hilferty); rare tokens are counted together."""
    often = expected >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    freedom = len(wanted) - 1
    statistic = float(((observed - wanted) ** 2 / wanted).sum()) / freedom
    spread = 2 / (9 * freedom)
    return (statistic ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def deviations(tiny_engine, draws, k, top_k=0, p_min=0.0):
    """How far the first and the second token are from the target's own softmax, in standard deviations."""
    seats = 25
    draft = tiny_engine(seed=1, n_seats=seats, **FLAT)
    target = tiny_engine(seed=2, n_seats=seats, **FLAT)
    reader = tiny_engine(seed=2, **FLAT)
    context = target.model.tokenize(TEXT)
    sampling = {"temperature": 1.0, "top_k": top_k}
    pairs = [
        pair
        for i in range(draws // seats)
        for pair in speculated(draft, target, context, seats, 2, i, k=k, sampling=sampling, p_min=p_min)
    ]
    first = chances_after(reader, context, top_k)
    second = sum(
        first[token] * chances_after(reader, [*context, int(token)], top_k) for token in np.flatnonzero(first)
    )
    counts = [np.bincount(tokens, minlength=len(first)) for tokens in zip(*pairs, strict=True)]
    return [surprise(seen, draws * chances) for seen, chances in zip(counts, (first, second), strict=True)]


@pytest.mark.parametrize(("k", "top_k", "p_min"), [(1, 0, 0.0), (3, 0, 0.0), (2, 12, 0.0), (3, 12, 0.1)])
def test_tokens_are_distributed_as_the_targets_own(k, top_k, p_min, tiny_engine):
    assert all(abs(z) < 3.5 for z in deviations(tiny_engine, 3000, k, top_k, p_min))


def test_a_guess_that_is_no_draw_leaves_the_distribution_as_it_is(tiny_engine):
    """Such as a token that is known from elsewhere: always the same one here, among the likeliest."""
    seats, draws = 25, 3000
    target, reader = tiny_engine(seed=2, n_seats=seats, **FLAT), tiny_engine(seed=2, **FLAT)
    context = target.model.tokenize(TEXT)
    chances = chances_after(reader, context)
    guess = int(np.argsort(chances)[-2])
    counts, accepted = np.zeros(len(chances)), 0
    for i in range(draws // seats):
        for seat in range(seats):
            job = options(seed=i * seats + seat, sampling=OPEN)
            target.submit(seat, Check(context, **job, guesses=(Guess(guess),)))
        for each in finish(target):
            if isinstance(each, Checked):
                counts[each.tokens[0]] += 1
                accepted += each.accepted
    assert abs(surprise(counts, draws * chances)) < 3.5
    assert accepted == counts[guess] > 0


def accept_all(self, ids, logits):
    self.chances = chances = Chances.from_logits(ids, logits)
    place = chances.place(self.guess.token) if self.guess else None
    return chances.draw(float(self._random.random())) if place is None else place


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Chances, "beyond", lambda self, other: self),  # resamples from p instead of what q leaves of it
        (Draws, "__call__", accept_all),
    ],
)
def test_the_test_of_distributions_notices_a_wrong_rule(owner, name, wrong, tiny_engine, monkeypatch):
    monkeypatch.setattr(owner, name, wrong)
    assert min(deviations(tiny_engine, 3000, 2)) > 4.5


def test_the_same_seeds_give_the_same_tokens(tiny_engine):
    def run(seed):
        draft, target = (tiny_engine(seed=i, favour=NO_END) for i in (1, 2))
        context = target.model.tokenize(TEXT)
        return speculated(draft, target, context, 1, 20, seed, k=4, sampling=OPEN)

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("k", [1, 2, 5, 16])
@pytest.mark.parametrize("other", [1, 2])
@pytest.mark.parametrize("sampling", [{}, {"repeat_penalty": 1.3}])
def test_greedy_tokens_are_the_targets_own(k, other, sampling, tiny_engine):
    draft, target = tiny_engine(seed=other, favour=NO_END), tiny_engine(seed=2, favour=NO_END)
    context = target.model.tokenize(TEXT)
    own = write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=33, sampling=sampling)
    (tokens,) = speculated(draft, target, context, 1, 33, 0, k=k, sampling=sampling)
    assert tuple(tokens) == own.tokens


@pytest.mark.parametrize("sampling", [{}, OPEN, {"temperature": 0.8, "top_k": 40, "top_p": 0.9}])
def test_what_the_same_model_proposes_is_accepted_as_a_whole(sampling, tiny_engine):
    draft, target = tiny_engine(favour=NO_END), tiny_engine(favour=NO_END)
    context = target.model.tokenize(TEXT)
    for seed in range(10):
        guesses = propose(draft, context, max_tokens=6, seed=seed, sampling=sampling)
        checked = check(target, context, guesses, seed=100 + seed, sampling=sampling)
        assert checked.accepted == 6
        assert checked.tokens[:6] == tuple(guess.token for guess in guesses)
        assert len(checked.tokens) == 7
        assert checked.refused == 0
        assert checked.ended is None


def test_a_proposal_carries_what_each_token_was_drawn_from(tiny_engine):
    engine = tiny_engine(favour=NO_END)
    context = engine.model.tokenize(TEXT)
    guesses = propose(engine, context, max_tokens=3, sampling=OPEN, seed=5)
    tokens = [guess.token for guess in guesses]
    for i, guess in enumerate(guesses):
        exact = chances_after(tiny_engine(favour=NO_END), [*context, *tokens[:i]])
        assert guess.chances is not None
        assert np.abs(exact[guess.chances.ids] - guess.chances.p).max() < 1e-4
        assert math.isclose(guess.chances.p.sum(), 1.0)
    narrow = propose(engine, context, max_tokens=3, sampling={"temperature": 0.7, "top_k": 5}, seed=5)
    assert [len(guess.chances.ids) for guess in narrow if guess.chances] == [5, 5, 5]
    assert [guess.chances for guess in propose(engine, context, max_tokens=3)] == [None] * 3


@pytest.mark.parametrize("sampling", [{}, OPEN, {"temperature": 0.7, "top_k": 40, "top_p": 0.9}])
def test_a_proposal_ends_behind_the_first_token_that_its_own_model_doubts(sampling, tiny_engine):
    likes = NO_END | {" sum": 3.0, " number": 3.0, " equals": 3.0}
    engine, reader = tiny_engine(favour=likes), tiny_engine(favour=likes)
    context = engine.model.tokenize(TEXT)
    whole = propose(engine, context, max_tokens=12, seed=5, sampling=sampling)
    assert len(whole) == 12
    chances = [guess.chance for guess in whole]
    if not sampling:  # no draw, so its own probability is that of the best 64
        tokens = [guess.token for guess in whole]
        each = [chances_after(reader, [*context, *tokens[:i]], 64) for i in range(12)]
        chances = [float(one[token]) for one, token in zip(each, tokens, strict=True)]
    lengths = set()
    for p_min in (0.0, *(chance + 1e-4 for chance in chances)):
        doubted = [i for i, chance in enumerate(chances) if chance < p_min]
        guesses = propose(engine, context, max_tokens=12, seed=5, sampling=sampling, p_min=p_min)
        assert [guess.token for guess in guesses] == [guess.token for guess in whole][
            : min(doubted, default=11) + 1
        ]
        lengths.add(len(guesses))
    assert len(lengths) > 2


def test_a_check_decodes_the_guesses_once_and_counts_them(tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    own = write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=20).tokens
    wrong = (own[3] + 1) % 90 + 33
    checked = check(engine, context, [*own[:3], wrong, *own[4:6]])
    assert checked.tokens == own[:4]
    assert (checked.accepted, checked.refused) == (3, 3)
    usage = engine.seats[0].usage
    assert (usage.generated, usage.fed, usage.discarded) == (4, len(context) + 3, 3)
    again = check(engine, [*context, *own[:4]], own[4:8])
    assert again.tokens == own[4:9]
    usage = engine.seats[0].usage
    assert usage.decoded == len(context) + 6 + 1 + 4 + 1, "all but the last token were decoded"
    seat = engine.release(0, [*context, *own[:9]])
    assert seat.usage.discarded == 3


def test_time_within_a_step_is_for_writing_whoever_wrote_what_is_read(tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    first = check(engine, context, [40, 41])
    read = engine.seats[0].time.prompt_ms
    assert read > 0
    assert engine.seats[0].time.decode_ms == 0, "the context was read in the same row"
    check(engine, [*context, *first.tokens], [40, 41], begun=1)
    wrote = engine.seats[0].time.decode_ms
    propose(engine, [*context, *first.tokens, 42, 43], begun=3, max_tokens=5)
    assert engine.seats[0].time.prompt_ms == read
    assert engine.seats[0].time.decode_ms > wrote > 0


def test_a_check_without_guesses_samples_one_token(tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    checked = check(engine, context, [])
    assert checked.tokens == write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=1).tokens
    assert (checked.accepted, checked.refused) == (0, 0)


def test_what_a_draft_proposes_and_never_decodes_is_not_counted(tiny_engine):
    engine = tiny_engine(seed=1, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    tokens = [guess.token for guess in propose(engine, context, max_tokens=4)]
    propose(engine, [*context, tokens[0], 40], max_tokens=4)  # three are gone, of which two were decoded
    assert engine.seats[0].usage.decoded == len(context) + 3 + 1 + 3 + 1, "one of the last four is owed"
    usage = engine.release(0).usage
    assert usage.generated == 8
    assert usage.decoded == len(context) + 3 + 1 + 3


@pytest.mark.parametrize("at", range(1, 7))
def test_a_separator_among_accepted_tokens_ends_the_step_there(at, tiny_engine):
    """The guesses are the model's own continuation, with the separator at any place and more behind it."""
    engine = tiny_engine(seed=2)
    context = engine.model.tokenize(TEXT)
    own = write(engine, context, max_tokens=60)
    assert own.ended == "separator"
    beginning, rest = own.tokens[:-at], own.tokens[-at:]
    more = write(engine, [*context, *own.tokens], max_tokens=3).tokens
    context = [*context, *beginning]
    checked = check(engine, context, [*rest, *more], begun=len(beginning))
    assert checked.tokens == rest
    assert checked.ended == "separator"
    assert own.text.endswith(checked.text)
    assert checked.accepted == at
    assert checked.refused == len(more)
    following = check(engine, [*context, *rest], more)
    assert following.tokens[: len(more)] == more
    fresh = tiny_engine(seed=2)
    assert np.abs(logits_after(engine, context) - logits_after(fresh, context)).max() < 1e-3


@pytest.mark.parametrize(("begun", "ended"), [(2, "separator"), (1, "separator"), (0, None)])
def test_a_step_ends_with_a_separator_that_began_in_an_earlier_check(begun, ended, tiny_engine):
    engine = tiny_engine(seed=2, favour={**NO_END, "So": 300.0})
    newline, word = engine.model.tokenize("\n")[0], engine.model.tokenize("So")[0]
    context = [*engine.model.tokenize(TEXT), newline]
    checked = check(engine, context, [word], begun=begun, separator="\nSo")
    assert checked.ended == ended
    assert checked.text == ("So" if ended else "SoSo")


def test_a_character_whose_bytes_come_in_two_checks_is_whole(tiny_engine):
    alphabet = tiny_engine().model
    lead, tail = alphabet.tokenize("\N{LATIN SMALL LETTER E WITH ACUTE}")
    engine = tiny_engine(favour=NO_END)
    context = [*engine.model.tokenize(TEXT), lead]
    sure = Guess(tail, Chances(np.array([tail], np.int32), np.array([1e-300])))  # accepted however rare it is
    sampling = {"temperature": 10.0, "top_k": 0}
    checked = check(engine, context, [sure], begun=1, sampling=sampling)
    assert checked.accepted == 1
    assert checked.text.startswith("\N{LATIN SMALL LETTER E WITH ACUTE}")


def test_the_end_of_generation_among_accepted_tokens_ends_the_step(tiny_engine):
    engine = tiny_engine(favour={"<eos>": 300.0})
    context, eos = engine.model.tokenize(TEXT), engine.model.eos
    checked = check(engine, context, [eos, eos, 40])
    assert (checked.tokens, checked.ended, checked.text, checked.accepted) == ((eos,), "eog", "", 1)


@pytest.mark.parametrize("n", [1, 3, 5, 6])
def test_a_check_samples_no_more_than_it_may(n, tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    own = write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=8).tokens
    checked = check(engine, context, own[:5], max_tokens=n)
    assert checked.tokens == own[:n]
    assert checked.ended == "max_tokens"


def test_a_check_at_the_end_of_the_context_ends_with_it(tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END, n_ctx=256)
    context = [40 + i % 50 for i in range(engine.n_ctx - 4)]
    own = write(tiny_engine(seed=2, favour=NO_END, n_ctx=512), context, max_tokens=8).tokens
    checked = check(engine, context, own)
    assert checked.tokens == own[:4]
    assert checked.ended == "context"


@pytest.mark.parametrize("accepts", [True, False])
def test_guesses_that_no_batch_has_room_for_are_checked_in_parts(accepts, tiny_engine):
    """Eight seats share batches of 16 tokens, so each check of 12 guesses takes several decodes."""
    engine = tiny_engine(seed=2, favour=NO_END, n_seats=8, n_batch=16)
    context = engine.model.tokenize(TEXT)
    own = write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=20).tokens
    guesses = own[:12] if accepts else (*own[:7], 40, *own[8:12])
    assert own[7] != 40
    for seat in range(8):
        job = Check(context, **options(), guesses=tuple(map(Guess, guesses)))
        engine.submit(seat, job)
    updates, decodes = [], 0
    while engine.busy:
        updates += engine.step()
        decodes += 1
    assert decodes == math.ceil((len(context) + (12 if accepts else 7)) / 2), "two tokens a seat"
    done = [each for each in updates if isinstance(each, Checked)]
    assert {each.tokens for each in done} == {own[:13] if accepts else own[:8]}
    assert len(done) == 8
    for seat in engine.seats:
        assert seat.usage.generated == len(done[0].tokens)
        assert seat.cached == len(seat.tokens) - 1
        assert streamed([each for each in updates if each.seat == seat.index]) == done[0].text


def test_a_seat_with_guesses_takes_over_what_another_has_read(tiny_engine):
    """Both know the context and the guesses; copied is what lies before the first output that is needed."""
    engine = tiny_engine(seed=2, favour=NO_END, n_seats=2)
    context = engine.model.tokenize(TEXT * 3)
    own = write(engine, context, max_tokens=8).tokens
    checked = check(engine, context, own[:5], seat=1)
    assert checked.tokens == own[:6]
    assert engine.seats[1].usage.reused == len(context) - 1


@pytest.mark.parametrize("sampling", [{}, OPEN])
def test_a_guess_that_the_target_does_not_know_is_refused(sampling, tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END, vocab=448)
    context = engine.model.tokenize(TEXT)
    chances = Chances(np.array([500, 40], np.int32), np.array([0.9, 0.1]))
    checked = check(engine, context, [Guess(500, chances), Guess(40, chances)], sampling=sampling)
    assert (checked.accepted, checked.refused) == (0, 2)
    assert checked.tokens[0] < 448


@pytest.mark.parametrize("sampling", [{}, OPEN])
def test_damaged_weights_are_an_engine_error(sampling, tiny_engine):
    engine = tiny_engine(nan=True)
    with pytest.raises(EngineError, match="weights are damaged"):
        check(engine, engine.model.tokenize(TEXT), [40, 41], sampling=sampling)
    with pytest.raises(EngineError, match="weights are damaged"):
        propose(engine, engine.model.tokenize(TEXT), sampling=sampling)


def test_an_aborted_check_leaves_the_seat_as_it_was_decided(tiny_engine):
    """After the first part of a check in parts: what was accepted is known, what was not looked at is forgotten."""
    engine = tiny_engine(seed=2, favour=NO_END, n_seats=4, n_batch=16)
    context = engine.model.tokenize(TEXT)
    own = write(tiny_engine(seed=2, favour=NO_END), context, max_tokens=20).tokens
    for seat in range(4):
        engine.submit(seat, Check(context, **options(), guesses=tuple(map(Guess, own[:14]))))
    while not any(seat.writing and seat.writing.tokens for seat in engine.seats):
        engine.step()
    started = [seat.index for seat in engine.seats if seat.writing and seat.writing.tokens]
    for index in range(4):
        seat = engine.release(index, context)
        assert len(seat.tokens) <= len(context) + seat.usage.generated
        assert (seat.usage.generated > 0) == (index in started)
        assert seat.usage.discarded == seat.usage.generated
    assert not engine.busy
    assert write(engine, context, max_tokens=20).tokens == own


def test_a_read_behind_a_check_sees_the_accepted_text_only(tiny_engine):
    engine = tiny_engine(seed=2, favour=NO_END)
    context = engine.model.tokenize(TEXT)
    checked = check(engine, context, [40, 41, 42, 43])
    after = [*context, *checked.tokens, *engine.model.tokenize(" equals")]
    engine.submit(0, Read(after, (1,), (len(after),)))
    finish(engine)
    fresh = tiny_engine(seed=2, favour=NO_END)
    assert np.abs(logits_after(engine, after) - logits_after(fresh, after)).max() < 1e-3


def test_a_distribution_loses_what_another_has_of_it():
    ours = Chances(np.array([7, 3, 9], np.int32), np.array([0.5, 0.3, 0.2]))
    theirs = Chances(np.array([3, 7, 4], np.int32), np.array([0.1, 0.6, 0.3]))
    left = ours.beyond(theirs)
    assert list(left.ids) == [7, 3, 9]
    assert np.allclose(left.p, [0.0, 0.5, 0.5])
    assert ours.beyond(ours) is ours, "nothing is left: rounding refused what is the same"


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.999999, 1 - 1e-16])
def test_a_draw_never_takes_what_has_no_chance(uniform):
    chances = Chances(np.array([1, 2, 3, 4], np.int32), np.array([0.0, 0.4, 0.6, 0.0]))
    assert chances.ids[chances.draw(uniform)] in (2, 3)


def test_a_file_is_a_pair_with_itself_and_with_other_weights(tiny_model):
    check_pair(tiny_model(seed=1), tiny_model(seed=1))
    check_pair(tiny_model(seed=1), tiny_model(seed=2))
    check_pair(tiny_model(seed=1, vocab=448), tiny_model(seed=2, vocab=448 + 128))


@pytest.mark.parametrize(
    ("draft", "target", "said"),
    [
        (("llama", {}), ("spm", {}), "types of vocabulary differ (2 and 1)"),
        (("llama", {}), ("llama", {"add_bos": True}), "token at the beginning differ (False and True)"),
        (("llama", {}), ("llama", {"vocab": 448 + 129}), "have 448 and 577 tokens"),
        (("llama", {"vocab": 448}), ("other", {"vocab": 448}), "tokens differ"),
    ],
)
def test_models_of_two_vocabularies_are_refused_with_what_differs(draft, target, said, tiny_model):
    one, other = (tiny_model(kind, **more) for kind, more in (draft, target))
    with pytest.raises(ModelError, match="can't propose tokens to") as caught:
        check_pair(one, other)
    for word in (one.path.name, other.path.name, said):
        assert word in caught.value.message
    assert caught.value.exit_code == 3


def test_the_first_token_that_differs_is_named(tiny_model):
    one, other = (tiny_model(extra=["<|same|>", name, name + name]) for name in ("<|tool|>", "<|call|>"))
    at = one.vocabulary().index(b"<|tool|>")
    with pytest.raises(ModelError) as caught:
        check_pair(one, other)
    assert f"token {at} is '<|tool|>' in the one and '<|call|>' in the other" in caught.value.message


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_a_model_that_cannot_be_cut_is_refused_by_name(kind, tiny_model):
    recurrent, other = tiny_model(kind), tiny_model()
    for pair in ((recurrent, other), (other, recurrent), (recurrent, recurrent)):
        with pytest.raises(ModelError, match=f"{recurrent.path.name} is a recurrent model"):
            check_pair(*pair)

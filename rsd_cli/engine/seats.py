"""An engine: one loaded model with N seats, fed and sampled by one llama_decode per step for all seats.

A job states its whole context. The seat keeps the common prefix with what its memory holds, cuts the rest
and feeds the tail; that is the only rollback. The engine knows nothing of roles, rewards or text boundaries
beyond the separator that a step must not cross.
"""

from __future__ import annotations

import codecs
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.engine.jobs import Broken, ContextOverflow, Drawn, Fed, Observed, Read, Sampled, Write, Written
from rsd_cli.engine.llama import Context, DecodeAborted, Row, Sampler
from rsd_cli.errors import EngineError, RSDError
from rsd_cli.records import RoleTime, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rsd_cli.engine.jobs import Job, Update, WrittenEnd
    from rsd_cli.engine.llama import ContextOptions, Model

SNAPSHOTS = 3  # the boundaries around the newest step, and one before them
WORTH_COPYING = 128  # a copy moves a whole seat: it pays for one part in this many of a seat's cells, or more
LEAST_COPIED = 16  # tokens


@dataclass
class Writing:
    """The step that a seat is writing."""

    sampler: Sampler
    started: float
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    states: NDArray[np.float32] | None = None
    n_states: int = 0
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )


@dataclass(frozen=True)
class HeadStart:
    """The first token of a job that may come next, drawn where a hidden state was read."""

    job: Write
    sampler: Sampler
    token: int


@dataclass
class Seat:
    """One sequence of the model. `tokens` is what it knows; the first `cached` of them are in its memory.

    `pending` is the position of a token that was sampled for an earlier job and not decoded there, or -1.
    `taken` by a trajectory, or else what it knows is what the last one left. `donor` is a seat that reads what
    this one would read as well, and is waited for.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    pending: int = -1
    taken: bool = False
    donor: int | None = None
    job: Job | None = None
    writing: Writing | None = None
    ahead: HeadStart | None = None
    usage: Usage = field(default_factory=Usage)
    time: RoleTime = field(default_factory=RoleTime)
    snapshots: list[tuple[int, bytes]] = field(default_factory=list)

    def count(self, **more: int) -> None:
        """Add to the usage."""
        self.usage = replace(self.usage, **{key: getattr(self.usage, key) + n for key, n in more.items()})

    def advance(self, n: int) -> None:
        """`n` more tokens are in the memory; those that this model did not sample itself were fed."""
        start, end = self.cached, self.cached + n
        context = len(self.job.context) if self.job else 0
        foreign = max(0, min(end, context) - start) - (start <= self.pending < end)
        self.count(fed=max(0, foreign))
        self.cached = end


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


class Engine:
    """One model, its context and its seats. `submit` a job to a free seat, then `step` until it is done."""

    def __init__(
        self, model: Model, options: ContextOptions, aborted: Callable[[], bool] | None = None
    ) -> None:
        self.model = model
        self.context = Context(model, options, aborted)
        self.n_ctx = self.context.n_ctx
        self._forgets = options.forgets
        self._worth_copying = max(LEAST_COPIED, self.n_ctx // WORTH_COPYING)
        self.seats = [Seat(i) for i in range(options.n_seats)]
        self._first = 0
        self._held: list[Update] = []  # what head starts gave, to be told by the next step

    @property
    def busy(self) -> bool:
        """Whether any seat has a job, or something is left to tell."""
        return bool(self._held) or any(seat.job for seat in self.seats)

    @property
    def n_waiting(self) -> int:
        """How many seats the next step serves; all of them where it only has to tell what is known."""
        return len(self.seats) if self._held else sum(seat.job is not None for seat in self.seats)

    def submit(self, index: int, job: Job) -> None:
        """Give a free seat its next job; raises ContextOverflow if it can't fit."""
        needed = len(job.context) + isinstance(job, Write)
        if needed > self.n_ctx:
            raise ContextOverflow(needed, self.n_ctx)
        seat = self.seats[index]
        ahead, seat.ahead = seat.ahead, None
        if ahead and ahead.job == job and seat.tokens == list(job.context):
            self._begin_with(seat, ahead)
            return
        if ahead:
            ahead.sampler.close()
        if not seat.taken:
            self._take(seat, job)
        kept = common_prefix(seat.tokens, job.context)
        seat.count(discarded=len(seat.tokens) - kept)
        seat.pending = seat.cached if kept > seat.cached else -1
        # The last token's output is needed, so at least that one is fed.
        self._rewind(seat, min(kept, seat.cached, len(job.context) - 1))
        seat.count(reused=seat.cached)
        seat.tokens, seat.job = list(job.context), job
        self._remember(seat)
        if isinstance(job, Write):
            sampler = Sampler(self.model, job.sampling, job.seed, job.context, watch=job.watch)
            seat.writing = Writing(sampler, time.perf_counter())

    def _take(self, seat: Seat, job: Job) -> None:
        """A trajectory begins: it keeps of the seat's memory what serves it, or has another seat's copied."""
        own = common_prefix(seat.tokens, job.context)
        donor, shared = self._donor(seat, job) if self.model.can_cut and not self._forgets else (seat, own)
        if shared - own < self._worth_copying:
            self._rewind(seat, min(own, seat.cached))
        elif shared <= donor.cached:
            self._copy(donor, seat, shared)
        else:
            self._rewind(seat, 0)
            seat.donor = donor.index
        seat.tokens, seat.taken = seat.tokens[: seat.cached], True

    def _donor(self, seat: Seat, job: Job) -> tuple[Seat, int]:
        """The other seat that knows most of a job's context, or will once it has read; and how much that is."""
        others = [other for other in self.seats if other is not seat and other.donor is None]
        return max(
            ((other, common_prefix(other.tokens, job.context)) for other in [seat, *others]),
            key=lambda pair: (pair[1], pair[0].cached >= pair[1]),
        )

    def _copy(self, donor: Seat, seat: Seat, n: int) -> None:
        self.context.cut(seat.index, 0)
        self.context.copy(donor.index, seat.index)
        self.context.cut(seat.index, n)
        seat.tokens[:n], seat.cached = donor.tokens[:n], n

    def _waits(self, seat: Seat) -> bool:
        """Whether a seat waits for its donor; as soon as that has read what both need, it is copied."""
        if seat.donor is None:
            return False
        donor, limit = self.seats[seat.donor], len(seat.tokens) - 1
        shared = min(common_prefix(donor.tokens, seat.tokens), limit)
        if donor.job and donor.cached < shared:
            return True
        seat.donor = None
        if shared <= donor.cached and shared >= self._worth_copying:
            self._copy(donor, seat, shared)
            seat.count(reused=shared)
        return False

    def _begin_with(self, seat: Seat, ahead: HeadStart) -> None:
        """Begin a job whose first token was drawn already; its context is in the memory."""
        seat.count(reused=seat.cached)
        seat.job, seat.writing = ahead.job, Writing(ahead.sampler, time.perf_counter())
        self._held += self._append(seat, ahead.job, seat.writing, ahead.token)

    def release(self, index: int, kept: Sequence[int] = ()) -> Seat:
        """End a seat's trajectory, whose final text is `kept`; gives the seat with its counts and frees it."""
        seat = self.seats[index]
        if seat.job and not (seat.writing and seat.writing.tokens):
            del seat.tokens[seat.cached :]  # an aborted reading: these were never decoded
        self._drop(seat)
        seat.count(discarded=len(seat.tokens) - common_prefix(seat.tokens, kept))
        left = 0 if self._forgets else seat.cached
        if not left:
            self.context.cut(index, 0)
        self.seats[index] = Seat(index, seat.tokens[:left], left, snapshots=seat.snapshots if left else [])
        return seat

    def partial(self, index: int) -> Written | None:
        """What a seat has written of an unfinished step; for interrupted answers."""
        seat = self.seats[index]
        return self._written(seat, seat.writing, "max_tokens") if seat.writing else None

    def step(self) -> list[Update]:
        """One llama_decode for all seats with a job, and what came of it."""
        if self._held:
            updates, self._held = self._held, []
            return updates
        seats, hidden = self._next()
        rows = self._gather(seats)
        writers = {row.seat for row in rows if row.position >= self._context_length(row.seat)}
        started = time.perf_counter()
        outputs = self._decode(rows, hidden=hidden)
        updates = []
        for row, output in outputs:
            updates += self._after_or_broken(self.seats[row.seat], row, output)
        self._clock(rows, writers, (time.perf_counter() - started) * 1000)
        return updates

    def _next(self) -> tuple[list[Seat], bool]:
        """The seats of the next decode, and whether it gives hidden states.

        Such a decode computes an output for every token, so it takes only seats with one token left; those that
        have more to read go before it, by themselves.
        """
        waiting = [seat for seat in self._rotated() if seat.job and not self._waits(seat)]
        if not any(self._awaits_state(seat) for seat in waiting):
            return waiting, False
        reading = [seat for seat in waiting if self._chunk(seat, self.context.n_batch) > 1]
        if reading:
            return reading, False
        if self.model.states_spoil_logits:
            return [seat for seat in waiting if self._awaits_state(seat)], True
        return waiting, True

    def _decode(self, rows: Sequence[Row], *, hidden: bool) -> list[tuple[Row, int]]:
        """Decode; gives each row with its batch index.

        Where that fails midway, the seats' memory ends again where they think it does.
        """
        pads = self._pads(rows)
        # llama.cpp computes streams together only where they stand in order.
        padded = sorted([*rows, *pads], key=lambda row: row.seat)
        try:
            outputs = self.context.decode(padded, hidden=hidden)
        except (DecodeAborted, RSDError):
            for row in padded:
                seat = self.seats[row.seat]
                if not (self.model.can_cut and self.context.cut(row.seat, seat.cached)):
                    seat.cached, seat.snapshots = self._clear(seat), []
            raise
        for row in pads:
            self.context.cut(row.seat, row.position)
        return [pair for pair in zip(padded, outputs, strict=True) if pair[0] not in pads]

    def _pads(self, rows: Sequence[Row]) -> list[Row]:
        """A token for every seat between the rows' first and last that has no row; it is cut off again.

        llama.cpp goes through the weights anew wherever streams are left out: 8 of 16 seats in even gaps took
        2.3 times as long as all 16 (README, Speed).
        """
        if not self.model.can_cut:
            return []
        taken = {row.seat for row in rows}
        gaps = [seat for seat in self.seats[min(taken) : max(taken)] if seat.index not in taken]
        return [Row(seat.index, seat.cached, [0], output=False) for seat in gaps if seat.cached < self.n_ctx]

    def close(self) -> None:
        """Free samplers and context; the model stays, others may share it."""
        for seat in self.seats:
            self._drop(seat)
        self.context.close()

    @staticmethod
    def _awaits_state(seat: Seat) -> bool:
        """Only one token is left, and its hidden state is wanted."""
        job = seat.job
        wanted = job.hidden if isinstance(job, Read) else bool(job and job.states)
        return wanted and seat.cached == len(seat.tokens) - 1

    def _gather(self, waiting: Sequence[Seat]) -> list[Row]:
        """A row for each waiting seat: writers need one token, readers share what is left of the batch."""
        room, rows = self.context.n_batch - (len(self.seats) - len(waiting)), []  # each other seat may be a pad
        for left, seat in zip(range(len(waiting), 0, -1), waiting, strict=True):
            n = self._chunk(seat, max(1, room // left))
            end = seat.cached + n
            rows.append(Row(seat.index, seat.cached, seat.tokens[seat.cached : end], end == len(seat.tokens)))
            room -= n
        return rows

    def _rotated(self) -> list[Seat]:
        self._first = (self._first + 1) % len(self.seats)
        return self.seats[self._first :] + self.seats[: self._first]

    def _chunk(self, seat: Seat, room: int) -> int:
        """How many tokens to feed now; a seat that can't be cut stops at boundaries for a snapshot."""
        left = len(seat.tokens) - seat.cached
        if isinstance(seat.job, Read) and seat.job.hidden and left > 1:
            left -= 1
        n = min(left, room)
        if seat.job and not self.model.can_cut:
            n = min([n, *(end - seat.cached for end in seat.job.boundaries if end > seat.cached)])
        return n

    def _remember(self, seat: Seat) -> None:
        """Take a snapshot of a seat that can't be cut, where its job has a boundary."""
        if self.model.can_cut or not seat.job or seat.cached not in seat.job.boundaries:
            return
        if seat.cached and seat.cached not in [at for at, _ in seat.snapshots]:
            seat.snapshots = [*seat.snapshots, (seat.cached, self.context.snapshot(seat.index))][-SNAPSHOTS:]

    def _after_or_broken(self, seat: Seat, row: Row, output: int) -> list[Update]:
        try:
            return self._after(seat, row, output)
        except EngineError as error:
            self._drop(seat)
            return [Broken(seat.index, error)]

    def _after(self, seat: Seat, row: Row, output: int) -> list[Update]:
        seat.advance(len(row.tokens))
        self._remember(seat)
        job = seat.job
        if not row.output:
            return [Fed(seat.index, seat.cached, len(seat.tokens))]
        if isinstance(job, Read):
            seat.job = None
            if job.hidden:
                seat.ahead = self._head_start(job.ahead, output)
                return [Observed(seat.index, hidden=self.context.hidden(output))]
            return [Observed(seat.index, tuple(self.context.logit(output, token) for token in job.tokens))]
        if isinstance(job, Write) and seat.writing:
            return self._sample(seat, job, seat.writing, output)
        raise AssertionError("a row belongs to a seat with a job")

    def _head_start(self, job: Write | None, output: int) -> HeadStart | None:
        if job is None or self.model.states_spoil_logits or len(job.context) >= self.n_ctx:
            return None
        sampler = Sampler(self.model, job.sampling, job.seed, job.context, watch=job.watch)
        return HeadStart(job, sampler, self._draw(sampler, output))

    def _draw(self, sampler: Sampler, output: int) -> int:
        token = sampler.draw(self.context, output)
        logit = self.context.logit(output, token)
        if not math.isfinite(logit):
            raise EngineError(
                f"{self.model.path.name} computed a logit of {logit}: its weights are damaged.",
                "Check the file with `rsd models verify`.",
            )
        return token

    def _sample(self, seat: Seat, job: Write, writing: Writing, output: int) -> list[Update]:
        if job.states and writing.tokens:
            state = self.context.hidden(output)
            writing.states = state if writing.states is None else writing.states + state
            writing.n_states += 1
        return self._append(seat, job, writing, self._draw(writing.sampler, output))

    def _append(self, seat: Seat, job: Write, writing: Writing, token: int) -> list[Update]:
        """A drawn token becomes part of the step; the job ends with it or goes on."""
        if job.watch:
            writing.drawn.append(writing.sampler.drawn(token))
        seat.tokens.append(token)
        writing.tokens.append(token)
        seat.count(generated=1)
        ended = self._end(seat, job, writing, token)
        text = writing.decoder.decode(
            b"" if ended == "eog" else self.model.piece(token), final=ended is not None
        )
        writing.text += text
        ended = ended or self._at_separator(job, writing, len(text))
        updates: list[Update] = [Sampled(seat.index, text)]
        if ended:
            updates.append(self._written(seat, writing, ended))
            self._drop(seat)
        return updates

    def _end(self, seat: Seat, job: Write, writing: Writing, token: int) -> WrittenEnd | None:
        if self.model.ends_generation(token):
            return "eog"
        if len(writing.tokens) >= job.max_tokens:
            return "max_tokens"
        return "context" if len(seat.tokens) >= self.n_ctx else None

    @staticmethod
    def _at_separator(job: Write, writing: Writing, fresh: int) -> WrittenEnd | None:
        """A step ends with the token that completes the separator, once it says anything at all."""
        tail = writing.text[-(fresh + len(job.separator) - 1) :]
        return "separator" if job.separator in tail and writing.text.strip() else None

    @staticmethod
    def _written(seat: Seat, writing: Writing, ended: WrittenEnd) -> Written:
        ms = (time.perf_counter() - writing.started) * 1000
        state = None if writing.states is None else writing.states / np.float32(writing.n_states)
        return Written(
            seat.index, tuple(writing.tokens), writing.text, ended, ms, tuple(writing.drawn), state
        )

    @staticmethod
    def _drop(seat: Seat) -> None:
        if seat.writing:
            seat.writing.sampler.close()
        if seat.ahead:
            seat.ahead.sampler.close()
        seat.job = seat.writing = seat.ahead = seat.donor = None

    def _rewind(self, seat: Seat, n: int) -> None:
        """Make the seat's memory end at `n` tokens, or earlier where only a snapshot lies before that."""
        if n == seat.cached:
            return
        if self.model.can_cut:
            seat.cached = n if self.context.cut(seat.index, n) else self._clear(seat)
            return
        seat.snapshots = [snapshot for snapshot in seat.snapshots if snapshot[0] <= n]
        if seat.snapshots:
            seat.cached, state = seat.snapshots[-1]
            self.context.restore(seat.index, state)
        else:
            seat.cached = self._clear(seat)

    def _clear(self, seat: Seat) -> int:
        self.context.cut(seat.index, 0)
        return 0

    def _context_length(self, index: int) -> int:
        job = self.seats[index].job
        return len(job.context) if job else 0

    def _clock(self, rows: Sequence[Row], writers: set[int], ms: float) -> None:
        """Share the wall time of a decode among its rows, by tokens: writing (decode) or reading (prompt)."""
        share = ms / sum(len(row.tokens) for row in rows)
        for row in rows:
            seat, spent = self.seats[row.seat], share * len(row.tokens)
            if row.seat in writers:
                seat.time = replace(seat.time, decode_ms=seat.time.decode_ms + spent)
            else:
                seat.time = replace(seat.time, prompt_ms=seat.time.prompt_ms + spent)

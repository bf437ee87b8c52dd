"""An engine: one loaded model with N seats. A step is one llama_decode for all of them that hold a stream.

A job states its whole context. The seat keeps the common prefix with what its memory holds, cuts the rest
and feeds the tail; that is the only rollback. The engine knows nothing of roles, rewards or text boundaries
beyond the separator that a step must not cross.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.engine.context import EVEN, FOUR, Context, Row
from rsd_cli.engine.jobs import Check, ContextOverflow, Fed, Read, Write
from rsd_cli.engine.memory import Memory
from rsd_cli.engine.pace import Pace
from rsd_cli.engine.progress import Progress
from rsd_cli.engine.seat import HeadStart, Part, Seat, Writing, common_prefix, share_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.jobs import Job, Update, Written
    from rsd_cli.engine.llama import Model


@dataclass(frozen=True)
class Turn:
    """The seats of one decode: it gives `hidden` states, or `writes` on what its seats have just sampled."""

    seats: Sequence[Seat]
    hidden: bool = False
    writes: bool = False

    def is_like(self, other: Turn) -> bool:
        """Whether both are for the same purpose."""
        return (self.hidden, self.writes) == (other.hidden, other.writes)


class Engine:
    """One model, its context and its seats. `submit` a job to a free seat, then `step` until it is done."""

    def __init__(
        self, model: Model, options: ContextOptions, aborted: Callable[[], bool] | None = None
    ) -> None:
        self.model = model
        self.context = Context(model, options, aborted)
        self.n_ctx = self.context.n_ctx
        self.pace = Pace()
        self.seats = [Seat(i) for i in range(options.n_seats)]
        self._memory = Memory(self.context, self.seats, forgets=options.forgets)
        self._progress = Progress(model, self.context, self._memory)
        self._clock = itertools.count()
        self._last = Turn([])
        self._held: list[Update] = []  # what head starts gave, to be told by the next step

    @property
    def busy(self) -> bool:
        """Whether any seat has a job, or something is left to tell."""
        return bool(self._held) or any(seat.job for seat in self.seats)

    @property
    def n_waiting(self) -> int:
        """How many seats the next step serves; all of them where it only has to tell what is known."""
        return len(self.seats) if self._held else sum(seat.job is not None for seat in self.seats)

    def submit(self, index: int, job: Job, siblings: tuple[int, ...] = ()) -> None:
        """Give a free seat its next job; raises ContextOverflow if it can't fit.

        `siblings` are all seats of the trajectory that it belongs to, if these are several: they know much of the
        same, and what one has read the others copy.
        """
        needed = len(job.context) + isinstance(job, Write)
        if needed > self.n_ctx:
            raise ContextOverflow(needed, self.n_ctx)
        if isinstance(job, Write) and job.states and self.model.states_spoil_logits:
            job = replace(job, states=False)  # it would draw from other logits than without
        seat = self.seats[index]
        ahead, seat.ahead = seat.ahead, None
        if ahead and ahead.job == job and seat.tokens == list(job.context):
            self._begin_with(seat, ahead)
            return
        if ahead:
            ahead.sampler.close()
        tokens = [*job.context, *self._guessed(job)]
        kept = common_prefix(seat.tokens, tokens)
        if not seat.taken:  # what the last trajectory left is not this one's to discard
            seat.taken = seat.fresh = True
            del seat.tokens[kept:]
        seat.fresh, seat.siblings, seat.likely = seat.fresh or bool(siblings), siblings, 0.0
        seat.forget(kept)
        seat.pending = seat.cached if kept > seat.cached else -1
        if seat.pending < 0:
            seat.settle_debt()
        seat.tokens, seat.job, seat.since, seat.owes = tokens, job, next(self._clock), False
        # The last tokens' outputs are needed, so these are fed.
        self._memory.rewind(seat, min(kept, seat.cached, seat.first_output))
        seat.count(reused=seat.cached)
        self._memory.remember(seat)
        if isinstance(job, Write):
            seat.writing = self._progress.begin(job)

    def _guessed(self, job: Job) -> list[int]:
        """What a check decodes behind its context; any token stands for one that this model doesn't have."""
        if not isinstance(job, Check):
            return []
        room = self.n_ctx - len(job.context)
        return [min(guess.token, self.model.n_vocab - 1) for guess in job.guesses[:room]]

    def _begin_with(self, seat: Seat, ahead: HeadStart) -> None:
        """Begin a job whose first token was drawn already; its context is in the memory."""
        seat.count(reused=seat.cached)
        seat.job, seat.writing = ahead.job, Writing(ahead.sampler, time.perf_counter())
        self._held += self._progress.append(seat, ahead.job, seat.writing, ahead.token)

    def release(self, index: int, kept: Sequence[int] = ()) -> Seat:
        """End a seat's trajectory, whose final text is `kept`; gives the seat with its counts and frees it."""
        seat = self.seats[index]
        if seat.job:  # what an aborted reading or check has not come to was never decoded
            sampled = seat.writing.sampled if seat.writing else 0
            del seat.tokens[len(seat.job.context) + sampled if sampled else seat.cached :]
        seat.drop()
        self._held = [update for update in self._held if update.seat != index]
        seat.settle_debt()
        seat.forget(common_prefix(seat.tokens, kept))
        self.seats[index] = self._memory.hand_over(seat)
        return seat

    def forget(self) -> None:
        """Empty what free seats know of earlier trajectories."""
        for seat in self.seats:
            if not seat.taken:
                self._memory.clear(seat)
                seat.tokens = []

    def reading(self, index: int) -> Fed | None:
        """How much of its context a seat's memory has, if more than one token is still to be read."""
        seat = self.seats[index]
        return Fed(index, seat.cached, len(seat.tokens)) if len(seat.tokens) - seat.cached > 1 else None

    def partial(self, index: int) -> Written | None:
        """What a seat has written of an unfinished step; for interrupted answers."""
        seat = self.seats[index]
        return seat.writing.written(seat.index, "max_tokens") if seat.writing else None

    def step(self) -> list[Update]:
        """One llama_decode for all seats with a job, and what came of it."""
        if self._held:
            updates, self._held = self._held, []
            return updates
        turn = self._last = self._next()
        parts = self._gather(turn.seats)
        writers = {part.seat.index for part in parts if part.is_writing}
        started = time.perf_counter()
        fill = EVEN if self.context.exact and not turn.writes else 1
        outputs = self._memory.decode([part.row for part in parts], hidden=turn.hidden, fill=fill)
        updates = []
        for part, output in zip(parts, outputs, strict=True):
            updates += self._progress.after(part.seat, part.row, output)
        seconds = time.perf_counter() - started
        share_time(parts, writers, seconds * 1000)
        if len(writers) == len(parts) == sum(len(part.row.tokens) for part in parts):
            self.pace.add(len(parts), seconds)
        return updates

    def _next(self) -> Turn:
        """The seats of the next decode.

        One that gives hidden states computes an output for every token, so it takes only seats with one token left.
        Those that have more to read take turns with it, so that neither waits for the other's end.
        """
        waiting = self._memory.settle(sorted((s for s in self.seats if s.job), key=lambda seat: seat.since))
        awaiting = [seat for seat in waiting if self._awaits_state(seat)]
        if self.context.exact:
            return self._next_exact(waiting, awaiting)
        if not awaiting:
            return Turn(waiting)
        reading = [seat for seat in waiting if self._chunk(seat, self.context.n_batch) > 1]
        if reading and self._last.hidden:
            return Turn([seat for seat in waiting if seat not in awaiting])
        if self.model.states_spoil_logits:
            return Turn(awaiting, hidden=True)
        return Turn([seat for seat in waiting if seat not in reading], hidden=True)

    def _next_exact(self, waiting: Sequence[Seat], awaiting: Sequence[Seat]) -> Turn:
        """Whether a token is read or written depends on its own job alone, so these have decodes of their own.

        Fewer than eight streams make no even decode of a token each: there what is written is decoded as if it was
        read.
        """
        few = self.context.n_streams < EVEN or self.context.n_streams % FOUR
        writing = [seat for seat in waiting if seat.goes_on and seat not in awaiting and not few]
        reading = [seat for seat in waiting if seat not in writing and seat not in awaiting]
        turns = [Turn(awaiting, hidden=True), Turn(reading), Turn(writing, writes=True)]
        last = next(i for i, turn in enumerate(turns) if turn.is_like(self._last))
        return next(turn for turn in turns[last + 1 :] + turns if turn.seats)

    def close(self) -> None:
        """Free samplers and context; the model stays, others may share it."""
        for seat in self.seats:
            seat.drop()
        self.context.close()

    @staticmethod
    def _awaits_state(seat: Seat) -> bool:
        """Only one token is left, and its hidden state is wanted."""
        job = seat.job
        wanted = job.hidden if isinstance(job, Read) else isinstance(job, Write) and job.states
        return wanted and seat.cached == len(seat.tokens) - 1

    def _gather(self, waiting: Sequence[Seat]) -> list[Part]:
        """A row for each waiting seat: writers need one token, readers share what is left of the batch."""
        room, parts = self._memory.room(len(waiting)), []
        for left, seat in zip(range(len(waiting), 0, -1), waiting, strict=True):
            n = self._chunk(seat, self._share(room, left))
            end = seat.cached + n
            tokens, outputs = seat.tokens[seat.cached : end], end - max(seat.cached, seat.first_output)
            parts.append(Part(seat, Row(self._memory.stream(seat), seat.cached, tokens, max(0, outputs))))
            room -= n + (-n % EVEN if self.context.exact else 0)
        return parts

    def _share(self, room: int, n_rows: int) -> int:
        """How much of the room is the next row's."""
        share = max(1, room // n_rows)
        return share - share % EVEN if self.context.exact else share

    def _chunk(self, seat: Seat, room: int) -> int:
        """How many tokens to feed now; a seat that can't be cut stops at boundaries for a snapshot."""
        left = len(seat.tokens) - seat.cached
        if isinstance(seat.job, Read) and seat.job.hidden and left > 1:
            left -= 1
        n = min(left, room)
        if self.context.exact and isinstance(seat.job, Check):  # how many guesses are refused is counted
            n = seat.first_output - seat.cached if 0 < seat.first_output - seat.cached < n < left else n
        if seat.job and not self.model.can_cut:
            n = min([n, *(end - seat.cached for end in seat.job.boundaries if end > seat.cached)])
        return n

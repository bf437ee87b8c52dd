"""An engine: one loaded model with N seats. A step is one llama_decode for all of them that hold a stream.

A job states its whole context. The seat keeps the common prefix with what its memory holds, cuts the rest
and feeds the tail; that is the only rollback. The engine knows nothing of roles, rewards or text boundaries
beyond the separator that a step must not cross.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.engine.jobs import Broken, ContextOverflow, Fed, Observed, Read, Sampled, Write, Written
from rsd_cli.engine.llama import Context, Row, Sampler
from rsd_cli.engine.memory import Memory
from rsd_cli.engine.seat import HeadStart, Seat, Writing, common_prefix
from rsd_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsd_cli.engine.jobs import Job, Update, WrittenEnd
    from rsd_cli.engine.llama import ContextOptions, Model


@dataclass(frozen=True)
class Part:
    """What one seat gets of a decode."""

    seat: Seat
    row: Row

    @property
    def is_writing(self) -> bool:
        """Whether the row is a token that the seat sampled, not one of its job's context."""
        return self.seat.job is not None and self.row.position >= len(self.seat.job.context)


class Engine:
    """One model, its context and its seats. `submit` a job to a free seat, then `step` until it is done."""

    def __init__(
        self, model: Model, options: ContextOptions, aborted: Callable[[], bool] | None = None
    ) -> None:
        self.model = model
        self.context = Context(model, options, aborted)
        self.n_ctx = self.context.n_ctx
        self.seats = [Seat(i) for i in range(options.n_seats)]
        self._memory = Memory(self.context, self.seats, forgets=options.forgets)
        self._clock = itertools.count()
        self._reads = False  # whether the last decode beside one for states was for reading
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
        seat = self.seats[index]
        ahead, seat.ahead = seat.ahead, None
        if ahead and ahead.job == job and seat.tokens == list(job.context):
            self._begin_with(seat, ahead)
            return
        if ahead:
            ahead.sampler.close()
        kept = common_prefix(seat.tokens, job.context)
        if not seat.taken:  # what the last trajectory left is not this one's to discard
            seat.taken = seat.fresh = True
            del seat.tokens[kept:]
        seat.fresh, seat.siblings, seat.likely = seat.fresh or bool(siblings), siblings, 0.0
        seat.forget(kept)
        seat.pending = seat.cached if kept > seat.cached else -1
        # The last tokens' outputs are needed, so these are fed.
        self._memory.rewind(seat, min(kept, seat.cached, len(job.context) - job.n_outputs))
        seat.count(reused=seat.cached)
        seat.tokens, seat.job, seat.since = list(job.context), job, next(self._clock)
        self._memory.remember(seat)
        if isinstance(job, Write):
            seat.writing = self._begin(job)

    def _begin(self, job: Write) -> Writing:
        sampler = Sampler(self.model, job.sampling, job.seed, job.context, watch=job.watch)
        writing = Writing(sampler, time.perf_counter())
        for token in job.context[len(job.context) - job.begun :]:
            writing.tokens.append(token)
            writing.text += writing.decoder.decode(self.model.piece(token))
        return writing

    def _begin_with(self, seat: Seat, ahead: HeadStart) -> None:
        """Begin a job whose first token was drawn already; its context is in the memory."""
        seat.count(reused=seat.cached)
        seat.job, seat.writing = ahead.job, Writing(ahead.sampler, time.perf_counter())
        self._held += self._append(seat, ahead.job, seat.writing, ahead.token)

    def release(self, index: int, kept: Sequence[int] = ()) -> Seat:
        """End a seat's trajectory, whose final text is `kept`; gives the seat with its counts and frees it."""
        seat = self.seats[index]
        if seat.job and len(seat.tokens) == len(seat.job.context):
            del seat.tokens[seat.cached :]  # an aborted reading: these were never decoded
        self._drop(seat)
        self._held = [update for update in self._held if update.seat != index]
        seat.forget(common_prefix(seat.tokens, kept))
        self.seats[index] = self._memory.hand_over(seat)
        return seat

    def forget(self) -> None:
        """Empty what free seats know of earlier trajectories."""
        for seat in self.seats:
            if not seat.taken:
                self._memory.clear(seat)
                seat.tokens = []

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
        parts = self._gather(seats)
        writers = {part.seat.index for part in parts if part.is_writing}
        started = time.perf_counter()
        outputs = self._memory.decode([part.row for part in parts], hidden=hidden)
        updates = []
        for part, output in zip(parts, outputs, strict=True):
            updates += self._after_or_broken(part.seat, part.row, output)
        self._share_time(parts, writers, (time.perf_counter() - started) * 1000)
        return updates

    def _next(self) -> tuple[list[Seat], bool]:
        """The seats of the next decode, and whether it gives hidden states.

        Such a decode computes an output for every token, so it takes only seats with one token left. Those that
        have more to read take turns with it, so that neither waits for the other's end.
        """
        waiting = self._memory.settle(sorted((s for s in self.seats if s.job), key=lambda seat: seat.since))
        awaiting = [seat for seat in waiting if self._awaits_state(seat)]
        if not awaiting:
            return waiting, False
        reading = [seat for seat in waiting if self._chunk(seat, self.context.n_batch) > 1]
        self._reads = bool(reading) and not self._reads
        if self._reads:
            return [seat for seat in waiting if seat not in awaiting], False
        if self.model.states_spoil_logits:
            return awaiting, True
        return [seat for seat in waiting if seat not in reading], True

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

    def _gather(self, waiting: Sequence[Seat]) -> list[Part]:
        """A row for each waiting seat: writers need one token, readers share what is left of the batch."""
        room, parts = self._memory.room(len(waiting)), []
        for left, seat in zip(range(len(waiting), 0, -1), waiting, strict=True):
            n = self._chunk(seat, max(1, room // left))
            end = seat.cached + n
            tokens, is_last = seat.tokens[seat.cached : end], end == len(seat.tokens)
            wanted = self._followed(seat, end) if isinstance(seat.job, Read) and seat.job.followers else 0
            row = Row(self._memory.stream(seat), seat.cached, tokens, is_last, min(n, wanted))
            parts.append(Part(seat, row))
            room -= n
        return parts

    @staticmethod
    def _followed(seat: Seat, end: int) -> int:
        """How many of the job's followers have been foretold when its context is decoded up to `end`."""
        job = seat.job
        outputs = job.n_outputs if job else 0
        return max(0, end - (len(seat.tokens) - outputs))

    def _chunk(self, seat: Seat, room: int) -> int:
        """How many tokens to feed now; a seat that can't be cut stops at boundaries for a snapshot."""
        left = len(seat.tokens) - seat.cached
        if isinstance(seat.job, Read) and seat.job.hidden and left > 1:
            left -= 1
        n = min(left, room)
        if seat.job and not self.model.can_cut:
            n = min([n, *(end - seat.cached for end in seat.job.boundaries if end > seat.cached)])
        return n

    def _after_or_broken(self, seat: Seat, row: Row, output: int) -> list[Update]:
        try:
            return self._after(seat, row, output)
        except EngineError as error:
            self._drop(seat)
            return [Broken(seat.index, error)]

    def _after(self, seat: Seat, row: Row, output: int) -> list[Update]:
        seat.advance(len(row.tokens))
        self._memory.remember(seat)
        job = seat.job
        if isinstance(job, Read) and row.n_outputs:
            first = self._followed(seat, seat.cached) - row.n_outputs
            wanted = job.followers[first : first + row.n_outputs]
            outputs = range(output - row.n_outputs + 1, output + 1)
            seat.likely += sum(map(self.context.logprob, outputs, wanted))
        if not row.output:
            return [Fed(seat.index, seat.cached, len(seat.tokens))]
        if isinstance(job, Read):
            seat.job = None
            if job.followers:
                return [Observed(seat.index, logprob=seat.likely)]
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
        if ended in (None, "max_tokens"):
            ended = self._at_separator(job, writing, len(text)) or ended
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
        seat.job = seat.writing = seat.ahead = None

    @staticmethod
    def _share_time(parts: Sequence[Part], writers: set[int], ms: float) -> None:
        """Share the wall time of a decode among its rows, by tokens: writing (decode) or reading (prompt)."""
        share = ms / sum(len(part.row.tokens) for part in parts)
        for part in parts:
            seat, spent = part.seat, share * len(part.row.tokens)
            if seat.index in writers:
                seat.time = replace(seat.time, decode_ms=seat.time.decode_ms + spent)
            else:
                seat.time = replace(seat.time, prompt_ms=seat.time.prompt_ms + spent)

"""An engine: one loaded model with N seats. A step is one llama_decode for all of them that hold a stream.

A job states its whole context. The seat keeps the common prefix with what its memory holds, cuts the rest
and feeds the tail; that is the only rollback. The engine knows nothing of roles, rewards or text boundaries
beyond the separator that a step must not cross.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING

from rsd_cli.engine.context import Context, Row
from rsd_cli.engine.jobs import (
    Broken,
    Check,
    Checked,
    ContextOverflow,
    Fed,
    Observed,
    Propose,
    Read,
    Sampled,
    Write,
    Written,
)
from rsd_cli.engine.memory import Memory
from rsd_cli.engine.pace import Pace
from rsd_cli.engine.sampling import Sampler
from rsd_cli.engine.seat import HeadStart, Part, Seat, Writing, common_prefix, share_time
from rsd_cli.engine.speculation import Draws, Guess
from rsd_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsd_cli.engine.context import ContextOptions
    from rsd_cli.engine.jobs import Job, Update, WrittenEnd
    from rsd_cli.engine.llama import Model


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
            seat.writing = self._begin(job)

    def _guessed(self, job: Job) -> list[int]:
        """What a check decodes behind its context; any token stands for one that this model doesn't have."""
        if not isinstance(job, Check):
            return []
        room = self.n_ctx - len(job.context)
        return [min(guess.token, self.model.n_vocab - 1) for guess in job.guesses[:room]]

    def _begin(self, job: Write) -> Writing:
        own = isinstance(job, (Propose, Check)) and job.sampling.temperature > 0
        draws = Draws(job.seed) if own else None
        sampler = Sampler(self.model, job.sampling, job.seed, job.context, watch=job.watch, choose=draws)
        writing = Writing(sampler, time.perf_counter(), draws)
        begun = job.context[len(job.context) - job.begun :]
        writing.resume(begun, b"".join(map(self.model.piece, begun)))
        return writing

    def _begin_with(self, seat: Seat, ahead: HeadStart) -> None:
        """Begin a job whose first token was drawn already; its context is in the memory."""
        seat.count(reused=seat.cached)
        seat.job, seat.writing = ahead.job, Writing(ahead.sampler, time.perf_counter())
        self._held += self._append(seat, ahead.job, seat.writing, ahead.token)

    def release(self, index: int, kept: Sequence[int] = ()) -> Seat:
        """End a seat's trajectory, whose final text is `kept`; gives the seat with its counts and frees it."""
        seat = self.seats[index]
        if seat.job:  # what an aborted reading or check has not come to was never decoded
            sampled = seat.writing.sampled if seat.writing else 0
            del seat.tokens[len(seat.job.context) + sampled if sampled else seat.cached :]
        self._drop(seat)
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

    def partial(self, index: int) -> Written | None:
        """What a seat has written of an unfinished step; for interrupted answers."""
        seat = self.seats[index]
        return seat.writing.written(seat.index, "max_tokens") if seat.writing else None

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
        seconds = time.perf_counter() - started
        share_time(parts, writers, seconds * 1000)
        if len(writers) == len(parts) == sum(len(part.row.tokens) for part in parts):
            self.pace.add(len(parts), seconds)
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
        wanted = job.hidden if isinstance(job, Read) else isinstance(job, Write) and job.states
        return wanted and seat.cached == len(seat.tokens) - 1

    def _gather(self, waiting: Sequence[Seat]) -> list[Part]:
        """A row for each waiting seat: writers need one token, readers share what is left of the batch."""
        room, parts = self._memory.room(len(waiting)), []
        for left, seat in zip(range(len(waiting), 0, -1), waiting, strict=True):
            n = self._chunk(seat, max(1, room // left))
            end = seat.cached + n
            tokens, outputs = seat.tokens[seat.cached : end], end - max(seat.cached, seat.first_output)
            parts.append(Part(seat, Row(self._memory.stream(seat), seat.cached, tokens, max(0, outputs))))
            room -= n
        return parts

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
        job, outputs = seat.job, range(output - row.output + 1, output + 1)
        if isinstance(job, Read):
            seat.likely += self._foretold(seat, job, outputs)
        if not row.output or (isinstance(job, Read) and seat.cached < len(seat.tokens)):
            return [Fed(seat.index, seat.cached, len(seat.tokens))]
        if isinstance(job, Read):
            seat.job = None
            if job.followers:
                return [Observed(seat.index, logprob=seat.likely)]
            if job.hidden:
                seat.ahead = self._head_start(job.ahead, output)
                return [Observed(seat.index, hidden=self.context.hidden(output))]
            return [Observed(seat.index, tuple(self.context.logit(output, token) for token in job.tokens))]
        if isinstance(job, Check) and seat.writing:
            return self._check(seat, job, seat.writing, outputs)
        if isinstance(job, Write) and seat.writing:
            return self._sample(seat, job, seat.writing, output)
        raise AssertionError("a row belongs to a seat with a job")

    def _foretold(self, seat: Seat, job: Read, outputs: range) -> float:
        """The log-probability of those of the job's followers that these outputs foretell."""
        first = seat.cached - len(outputs) - seat.first_output
        return sum(map(self.context.logprob, outputs, job.followers[max(0, first) :]))

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
        if job.states and writing.sampled:
            state = self.context.hidden(output)
            writing.states = state if writing.states is None else writing.states + state
            writing.n_states += 1
        return self._append(seat, job, writing, self._draw(writing.sampler, output))

    def _append(self, seat: Seat, job: Write, writing: Writing, token: int) -> list[Update]:
        """A drawn token becomes part of the step; the job ends with it or goes on."""
        updates: list[Update] = [self._take(seat, job, writing, token)]
        if isinstance(job, Propose):
            seat.owes, updates = True, []
            writing.guesses.append(Guess(token, writing.draws.chances if writing.draws else None))
        if writing.ended:
            proposes = isinstance(job, Propose)
            updates.append(
                writing.proposed(seat.index) if proposes else writing.written(seat.index, writing.ended)
            )
            self._drop(seat)
        return updates

    def _check(self, seat: Seat, job: Check, writing: Writing, outputs: range) -> list[Update]:
        """Sample at each output of a decode, up to the first token that was not guessed."""
        decided = len(job.context) + writing.sampled
        undecided = seat.tokens[decided:]
        del seat.tokens[decided:]
        updates: list[Update] = []
        for output in outputs:
            guess = job.guess(writing.sampled)
            if writing.draws:
                writing.draws.guess = guess
            token = self._draw(writing.sampler, output)
            updates.append(self._take(seat, job, writing, token))
            as_guessed = guess is not None and guess.token == token
            writing.accepted += as_guessed
            if writing.ended or not as_guessed:
                return [*updates, self._checked(seat, job, writing)]
        seat.tokens += undecided[len(outputs) :]  # the batch had no room for more
        return updates

    def _checked(self, seat: Seat, job: Check, writing: Writing) -> Checked:
        """End a check: the memory of what was refused is cut off."""
        right = min(seat.cached, len(job.context) + writing.accepted)
        refused = seat.cached - right
        seat.count(fed=refused, discarded=refused)
        self._memory.rewind(seat, right)
        self._drop(seat)
        return writing.checked(seat.index, refused)

    def _take(self, seat: Seat, job: Write, writing: Writing, token: int) -> Sampled:
        if job.watch:
            writing.drawn.append(writing.sampler.drawn(token))
        seat.tokens.append(token)
        writing.tokens.append(token)
        seat.count(generated=1)
        ended = self._end(seat, job, writing, token)
        text = writing.read(b"" if ended == "eog" else self.model.piece(token), final=ended is not None)
        if ended in (None, "max_tokens"):
            ended = writing.at_separator(job.separator, len(text)) or ended
        writing.ended = ended
        return Sampled(seat.index, text)

    def _end(self, seat: Seat, job: Write, writing: Writing, token: int) -> WrittenEnd | None:
        if self.model.ends_generation(token):
            return "eog"
        if len(writing.tokens) >= job.max_tokens:
            return "max_tokens"
        return "context" if len(seat.tokens) >= self.n_ctx else None

    @staticmethod
    def _drop(seat: Seat) -> None:
        if seat.writing:
            seat.writing.sampler.close()
        if seat.ahead:
            seat.ahead.sampler.close()
        seat.job = seat.writing = seat.ahead = None

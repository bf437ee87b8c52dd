"""What the outputs of a decode mean for a seat's job: a token drawn, logits or a state read, guesses checked.

It decodes nothing and does not know which seats come next.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import Broken, Check, Fed, Observed, Propose, Read, Sampled, Write
from rsd_cli.engine.sampling import Sampler
from rsd_cli.engine.seat import HeadStart, Writing
from rsd_cli.engine.speculation import Draws, Guess
from rsd_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.engine.context import Context, Row
    from rsd_cli.engine.jobs import Checked, Update, WrittenEnd
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.memory import Memory
    from rsd_cli.engine.seat import Seat


class Progress:
    """Carries the jobs of one engine's seats on."""

    def __init__(self, model: Model, context: Context, memory: Memory) -> None:
        self._model, self._context, self._memory = model, context, memory

    def begin(self, job: Write) -> Writing:
        """A sampler for a job, and what earlier jobs have written of its step."""
        own = isinstance(job, (Propose, Check)) and job.sampling.temperature > 0
        draws = Draws(job.seed) if own else None
        doubts = isinstance(job, Propose) and job.p_min > 0 and not own  # draws know the probability
        watch = job.watch or doubts
        sampler = Sampler(self._model, job.sampling, job.seed, job.context, watch=watch, choose=draws)
        writing = Writing(sampler, time.perf_counter(), draws)
        begun = job.context[len(job.context) - job.begun :]
        writing.resume(begun, b"".join(map(self._model.piece, begun)))
        return writing

    def after(self, seat: Seat, row: Row, output: int) -> list[Update]:
        """What a seat's row of a decode gave; `output` is its last. A model that fails ends this seat's job alone."""
        try:
            return self._after(seat, row, output)
        except EngineError as error:
            seat.drop()
            return [Broken(seat.index, error)]

    def _after(self, seat: Seat, row: Row, output: int) -> list[Update]:
        seat.advance(len(row.tokens))
        self._memory.remember(seat)
        job, outputs = seat.job, range(output - row.output + 1, output + 1)
        if isinstance(job, Read):
            for logprob in self._foretold(seat, job, outputs):
                seat.likely += logprob  # one by one: the same sum however the reading was cut
        if not row.output or (isinstance(job, Read) and seat.cached < len(seat.tokens)):
            return [Fed(seat.index, seat.cached, len(seat.tokens))]
        if isinstance(job, Read):
            seat.job = None
            if job.followers:
                return [Observed(seat.index, logprob=seat.likely)]
            if job.hidden:
                seat.ahead = self._head_start(job.ahead, output)
                return [Observed(seat.index, hidden=self._context.hidden(output))]
            return [Observed(seat.index, tuple(self._context.logit(output, token) for token in job.tokens))]
        if isinstance(job, Check) and seat.writing:
            return self._check(seat, job, seat.writing, outputs)
        if isinstance(job, Write) and seat.writing:
            return self._sample(seat, job, seat.writing, output)
        raise AssertionError("a row belongs to a seat with a job")

    def _foretold(self, seat: Seat, job: Read, outputs: range) -> Iterator[float]:
        """The log-probabilities of those of the job's followers that these outputs foretell."""
        first = seat.cached - len(outputs) - seat.first_output
        return map(self._context.logprob, outputs, job.followers[max(0, first) :])

    def _head_start(self, job: Write | None, output: int) -> HeadStart | None:
        if job is None or self._model.states_spoil_logits or len(job.context) >= self._context.n_ctx:
            return None
        sampler = Sampler(self._model, job.sampling, job.seed, job.context, watch=job.watch)
        return HeadStart(job, sampler, self._draw(sampler, output))

    def _draw(self, sampler: Sampler, output: int) -> int:
        token = sampler.draw(self._context, output)
        logit = self._context.logit(output, token)
        if not math.isfinite(logit):
            raise EngineError(
                f"{self._model.path.name} computed a logit of {logit}: its weights are damaged.",
                "Check the file with `rsd models verify`.",
            )
        return token

    def _sample(self, seat: Seat, job: Write, writing: Writing, output: int) -> list[Update]:
        if job.states and writing.sampled:
            state = self._context.hidden(output)
            writing.states = state if writing.states is None else writing.states + state
            writing.n_states += 1
        return self.append(seat, job, writing, self._draw(writing.sampler, output))

    def append(self, seat: Seat, job: Write, writing: Writing, token: int) -> list[Update]:
        """A drawn token becomes part of the step; the job ends with it or goes on."""
        updates: list[Update] = [self._take(seat, job, writing, token)]
        if isinstance(job, Propose):
            return self._propose(seat, job, writing, token)
        if writing.ended:
            updates.append(writing.written(seat.index, writing.ended))
            seat.drop()
        return updates

    @staticmethod
    def _propose(seat: Seat, job: Propose, writing: Writing, token: int) -> list[Update]:
        """Keep a drawn token as a guess; the last one ends the job."""
        seat.owes = True
        guess = Guess(token, writing.draws.chances if writing.draws else None)
        writing.guesses.append(guess)
        if not writing.ended and (job.p_min <= 0 or writing.chance(guess) >= job.p_min):
            return []
        proposed = writing.proposed(seat.index)
        seat.drop()
        return [proposed]

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
        seat.drop()
        return writing.checked(seat.index, refused)

    def _take(self, seat: Seat, job: Write, writing: Writing, token: int) -> Sampled:
        if job.watch:
            writing.drawn.append(writing.sampler.drawn(token))
        seat.tokens.append(token)
        writing.tokens.append(token)
        seat.count(generated=1)
        ended = self._end(seat, job, writing, token)
        text = writing.read(b"" if ended == "eog" else self._model.piece(token), final=ended is not None)
        if ended in (None, "max_tokens"):
            ended = writing.at_separator(job.separator, len(text)) or ended
        writing.ended = ended
        return Sampled(seat.index, text)

    def _end(self, seat: Seat, job: Write, writing: Writing, token: int) -> WrittenEnd | None:
        if self._model.ends_generation(token):
            return "eog"
        if len(writing.tokens) >= job.max_tokens:
            return "max_tokens"
        return "context" if len(seat.tokens) >= self._context.n_ctx else None

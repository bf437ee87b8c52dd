"""Seats problems, drives their policies over the engines and yields events. The same loop for one and for many.

A paused policy is a waiting problem: each answer of an engine is sent into its policy, and the policy's next
request becomes that seat's next job. A problem that can't be answered fails by itself.
"""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rsd_cli.decoding import events
from rsd_cli.decoding.policies import STRATEGIES, Judge, Keep, Proposal, Write, threshold
from rsd_cli.decoding.trajectory import Answerer, Critic, Trajectory
from rsd_cli.engine import jobs
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.llama import DecodeAborted, Sampling
from rsd_cli.errors import ModelError, RSDError, UsageError
from rsd_cli.rewards.draft_head import DraftHead
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from rsd_cli.decoding.policies import Request
    from rsd_cli.decoding.trajectory import Participant, Problem, Settings
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.seats import Engine
    from rsd_cli.engine.templates import Message
    from rsd_cli.records import Author, EndedBy, Role, RoleTime, Usage
    from rsd_cli.rewards.families import Family

Answer = Proposal | float | str | None  # what requests are answered with: Write, Judge, Keep
NO_REWARD = math.nan  # of a PRM that gave none: below every threshold
STEP_ROOM = 32  # tokens that a context must have left for one step
IDLE_SECONDS = 0.02  # between looks at an input that is slow


class Trio(Protocol):
    """The loaded models; a role may still be loading until it is asked for."""

    def engine(self, role: Role) -> Engine:
        """The engine that plays a role; two roles never share one."""
        ...

    def loaded(self) -> dict[Role, Engine]:
        """The engines that are there already."""
        ...

    def prompt(self, role: Author, system: str, question: str, before: Sequence[Message] = ()) -> list[int]:
        """The question as this role sees it before the first step, in its own template and tokens."""
        ...

    @property
    def family(self) -> Family | None:
        """How the PRM scores; None for strategies without one."""
        ...

    @property
    def critic(self) -> Role:
        """Whose engine the PRM reads with: its own, or the draft's if it is a head on that."""
        ...


@dataclass(frozen=True)
class Finished:
    """A trajectory that is over, with each role's counts; what a record is made of."""

    trajectory: Trajectory
    ended_by: EndedBy
    usage: dict[Role, Usage]
    times: dict[Role, RoleTime]


@dataclass(frozen=True)
class Failed:
    """A problem that could not be answered; its seat is free again."""

    problem: Problem
    error: RSDError


Happened = events.Event | Finished | Failed


def finished(happened: Happened) -> Finished | None:
    """The finished trajectory, if that is what happened; raises what a problem failed with."""
    if isinstance(happened, Failed):
        raise happened.error
    return happened if isinstance(happened, Finished) else None


class _UnanswerableError(Exception):
    """A model can't be asked this."""

    def __init__(self, error: RSDError) -> None:
        super().__init__(error.message)
        self.error = error


class Runner:
    """Answers problems in as many seats as its engines have.

    With `side_by_side` all engines with work step at once, each in a thread (llama_decode releases the GIL): for
    engines on several devices. On one device they take turns.
    """

    def __init__(
        self, trio: Trio, settings: Settings, n_seats: int = 1, *, side_by_side: bool = False
    ) -> None:
        self._trio, self._settings = trio, settings
        self._free = deque(range(n_seats))
        self._seated: dict[int, Trajectory] = {}
        self._threads = ThreadPoolExecutor(3, "engine") if side_by_side else None

    def run(self, problems: Iterable[Problem | None]) -> Iterator[Happened]:
        """Answer all problems; on an abort the seated ones end as they are and the rest is not begun.

        A None among the problems means that the next one has not arrived yet.
        """
        waiting: Iterator[Problem | None] | None = iter(problems)
        try:
            while waiting or self._seated:
                waiting = yield from self._fill(waiting)
                yield from self._stop_overdue()
                for role, update in self._step():
                    yield from self._route(role, update)
                if waiting and not self._seated:
                    time.sleep(IDLE_SECONDS)
        except DecodeAborted:
            for trajectory in list(self._seated.values()):
                yield from self._stop(trajectory, "interrupted")
        finally:
            if self._threads:
                self._threads.shutdown()

    def _step(self) -> Iterator[tuple[Role, jobs.Update]]:
        """One decode of the engine whose batch is fullest: the others' seats wait until theirs is worth one."""
        busy = {role: engine for role, engine in self._trio.loaded().items() if engine.n_waiting}
        if self._threads is None and busy:
            role = max(busy, key=lambda role: busy[role].n_waiting)
            yield from ((role, update) for update in busy[role].step())
        elif self._threads:
            steps = {role: self._threads.submit(engine.step) for role, engine in busy.items()}
            done = [(role, step.result()) for role, step in steps.items()]
            yield from ((role, update) for role, updates in done for update in updates)

    def _fill(
        self, waiting: Iterator[Problem | None] | None
    ) -> Generator[Happened, None, Iterator[Problem | None] | None]:
        """Seat what has arrived; gives what is left of the input, None at its end."""
        while self._free and waiting:
            try:
                problem = next(waiting)
            except StopIteration:
                return None
            if problem is None:
                break
            settings = problem.settings or self._settings
            policy = STRATEGIES[settings.strategy].start(threshold(settings.threshold))
            trajectory = Trajectory(problem, self._free.popleft(), policy, settings)
            self._seated[trajectory.seat] = trajectory
            yield from self._advance(trajectory, None)
        return waiting

    def _stop_overdue(self) -> Iterator[Happened]:
        for trajectory in list(self._seated.values()):
            if trajectory.overdue:
                yield from self._stop(trajectory, "timeout")

    def _advance(self, trajectory: Trajectory, answer: Answer) -> Iterator[Happened]:
        """Send an answer into the policy until it asks an engine for something, or is over."""
        try:
            while True:
                judged, trajectory.request = trajectory.request, trajectory.policy.send(answer)
                request = trajectory.request
                if isinstance(judged, Judge) and isinstance(answer, float):
                    yield self._verdict(trajectory, judged.step, answer, request)
                if isinstance(request, Keep):
                    answer = trajectory.keep(request)
                    yield events.Kept(trajectory.problem.id, trajectory.steps[-1])
                    continue
                if isinstance(request, Judge):
                    yield events.Judging(trajectory.problem.id)
                answer = self._submit(trajectory, request)
                if answer is None:
                    return
        except StopIteration as stop:
            yield self._finish(trajectory, stop.value)
        except ContextOverflow as error:
            yield self._finish(trajectory, "context") if trajectory.steps else self._fail(trajectory, error)
        except _UnanswerableError as unanswerable:
            yield self._fail(trajectory, unanswerable.error)

    @staticmethod
    def _verdict(trajectory: Trajectory, step: Proposal, reward: float, then: Request) -> events.Judged:
        accepted = isinstance(then, Keep)
        known = None if math.isnan(reward) else reward
        return events.Judged(trajectory.problem.id, step.text, len(step.ids), known, accepted)

    def _submit(self, trajectory: Trajectory, request: Request) -> float | None:
        """Make a request an engine's job; gives the answer at once where it needs no engine."""
        if isinstance(request, Write):
            self._write(trajectory, request.author)
            return None
        if isinstance(request, Judge):
            return self._judge(trajectory, request.step)
        raise AssertionError(f"{request} is no engine's work")

    def _write(self, trajectory: Trajectory, author: Author) -> None:
        context = self._participant(trajectory, author).context
        job = self._job(trajectory, author, context, trajectory.next_seed(author), trajectory.tokens_left)
        self._trio.engine(author).submit(trajectory.seat, job)

    def _job(
        self, trajectory: Trajectory, author: Author, context: Sequence[int], seed: int, max_tokens: int
    ) -> jobs.Write:
        settings = trajectory.settings
        is_judged = author == "draft" or settings.strategy == "audit"
        return jobs.Write(
            context=context,
            sampling=settings.sampling or Sampling(),
            seed=seed,
            separator=settings.separator,
            max_tokens=max_tokens,
            watch=is_judged and isinstance(self._trio.family, Confidence),
        )

    def _judge(self, trajectory: Trajectory, step: Proposal) -> float | None:
        family = self._trio.family
        if isinstance(family, Confidence):
            return family.reward(step.logprob, len(step.ids))
        if family is None:
            raise TypeError("this strategy has no PRM")
        try:
            if isinstance(family, DraftHead) and self._trio.critic == "draft":
                self._judge_in_place(trajectory, step, family)
            else:
                self._participant(trajectory, "prm")
                self._trio.engine("prm").submit(trajectory.seat, family.job(trajectory.solution(step)))
        except ContextOverflow:
            return NO_REWARD
        return None

    def _judge_in_place(self, trajectory: Trajectory, step: Proposal, family: DraftHead) -> None:
        """Read the state of the draft's own last token, in the decode that its next step begins with."""
        draft = self._participant(trajectory, "draft").context
        if step.author != "draft":
            own = self._trio.engine("draft").model.tokenize(step.text)
            self._trio.engine("draft").submit(trajectory.seat, family.own_job([*draft, *own], None))
            return
        context = [*draft, *step.ids]
        seed, left = trajectory.coming_seed("draft"), trajectory.tokens_left - len(step.ids)
        goes_on = step.ended == "separator" and left > 0
        ahead = self._job(trajectory, "draft", context, seed, left) if goes_on else None
        self._trio.engine("draft").submit(trajectory.seat, family.own_job(context, ahead))

    def _participant(self, trajectory: Trajectory, role: Role) -> Participant:
        if role not in trajectory.participants:
            engine = self._trio.engine(role)
            participant = self._join(trajectory, role, engine.model)
            self._check_room(role, engine, len(participant.prompt))
            trajectory.join(role, participant)
        return trajectory.participants[role]

    def _join(self, trajectory: Trajectory, role: Role, model: Model) -> Participant:
        problem, family = trajectory.problem, self._trio.family
        question = problem.question
        if role != "prm":
            try:
                prompt = self._trio.prompt(role, trajectory.settings.system, question, problem.before)
            except ModelError as error:
                raise _UnanswerableError(error) from error
            return Answerer(model, prompt)
        if family is None or isinstance(family, Confidence):
            raise TypeError(f"{family} reads nothing")
        return Critic(family, Solution(question))

    @staticmethod
    def _check_room(role: Role, engine: Engine, tokens: int) -> None:
        over = tokens + STEP_ROOM - engine.n_ctx
        if over > 0:
            error = UsageError(
                f"The question is {tokens:,} tokens long for the {role} model, {over:,} too many for its context "
                f"of {engine.n_ctx:,} with {STEP_ROOM} left for a step.",
                f"Shorten it, or raise --ctx (this model was trained for {engine.model.n_ctx_train:,}).",
            )
            raise _UnanswerableError(error)

    def _route(self, role: Role, update: jobs.Update) -> Iterator[Happened]:
        """Turn what an engine did for a seat into events, and its results into answers for the policy."""
        trajectory = self._seated[update.seat]
        name = trajectory.problem.id
        if isinstance(update, jobs.Fed):
            yield events.Reading(name, role, update.done, update.total)
        elif isinstance(update, jobs.Sampled) and role != "prm":
            trajectory.first_token_at = trajectory.first_token_at or time.perf_counter()
            yield events.Streamed(name, role, update.text)
        elif isinstance(update, jobs.Written) and role != "prm":
            yield from self._advance(trajectory, self._proposal(role, update))
        elif isinstance(update, jobs.Observed):
            yield from self._advance(trajectory, self._reward(trajectory, update))
        elif isinstance(update, jobs.Broken):
            yield self._fail(trajectory, update.error)

    def _reward(self, trajectory: Trajectory, observed: jobs.Observed) -> float:
        """The newest step's reward; what is no finite number counts as none, so that the step is rejected."""
        family, request = self._trio.family, trajectory.request
        if family is None or isinstance(family, Confidence) or not isinstance(request, Judge):
            raise TypeError(f"{family} reads nothing")
        reward = family.reward(observed, trajectory.solution(request.step))
        return reward if math.isfinite(reward) else NO_REWARD

    @staticmethod
    def _proposal(author: Author, written: jobs.Written) -> Proposal:
        return Proposal(author, written.text, written.tokens, written.ended, written.logprob, written.ms)

    def _stop(self, trajectory: Trajectory, ended_by: EndedBy) -> Iterator[Happened]:
        """Keep what is there of the step being written or judged, and end."""
        step = self._unfinished(trajectory)
        if step and step.text.strip():
            trajectory.keep(Keep(step))
            yield events.Kept(trajectory.problem.id, trajectory.steps[-1])
        yield self._finish(trajectory, ended_by)

    def _unfinished(self, trajectory: Trajectory) -> Proposal | None:
        if isinstance(trajectory.request, Judge):
            return trajectory.request.step
        if not isinstance(trajectory.request, Write):
            return None
        author = trajectory.request.author
        written = (
            self._trio.engine(author).partial(trajectory.seat) if author in trajectory.participants else None
        )
        return self._proposal(author, written) if written else None

    def _finish(self, trajectory: Trajectory, ended_by: EndedBy) -> Finished:
        """Free the seat in every engine; what they hold beyond the final text counts as discarded."""
        usage: dict[Role, Usage] = {}
        times: dict[Role, RoleTime] = {}
        for role, participant in trajectory.participants.items():
            seat = self._trio.engine(role).release(trajectory.seat, participant.context)
            seat.count(prompt=len(participant.prompt))
            usage[role] = self._with_discarded(role, trajectory, seat.usage)
            times[role] = seat.time
        self._leave(trajectory)
        return Finished(trajectory, ended_by, usage, times)

    def _fail(self, trajectory: Trajectory, error: RSDError) -> Failed:
        for role in trajectory.participants:
            self._trio.engine(role).release(trajectory.seat)
        self._leave(trajectory)
        return Failed(trajectory.problem, error)

    def _leave(self, trajectory: Trajectory) -> None:
        del self._seated[trajectory.seat]
        self._free.append(trajectory.seat)
        trajectory.policy.close()

    @staticmethod
    def _with_discarded(role: Role, trajectory: Trajectory, usage: Usage) -> Usage:
        """A generator discards what it sampled in vain, even if the cache could serve the same tokens again."""
        if role == "prm":
            return usage
        kept = sum(step.tokens for step in trajectory.steps if step.author == role)
        return replace(usage, discarded=usage.generated - kept)

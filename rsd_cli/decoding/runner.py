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
from typing import TYPE_CHECKING

from rsd_cli.decoding import events
from rsd_cli.decoding.policies import (
    STRATEGIES,
    Check,
    Judge,
    Keep,
    Proposal,
    Propose,
    Write,
    threshold,
)
from rsd_cli.decoding.requests import NO_REWARD, Requests, UnanswerableError
from rsd_cli.decoding.speculative import speculating
from rsd_cli.decoding.trajectory import Trajectory
from rsd_cli.engine import jobs
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.rewards.families import Confidence

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from rsd_cli.decoding.policies import Request
    from rsd_cli.decoding.requests import Trio
    from rsd_cli.decoding.trajectory import Problem, Settings
    from rsd_cli.errors import RSDError
    from rsd_cli.records import Author, EndedBy, Role, RoleTime, Usage

# What requests are answered with: Write, Judge, Keep, Propose, Check.
Answer = Proposal | float | str | jobs.Proposed | jobs.Checked | None
IDLE_SECONDS = 0.02  # between looks at an input that is slow


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


class Runner:
    """Answers problems in as many seats as its engines have.

    With `side_by_side` all engines with work step at once, each in a thread (llama_decode releases the GIL): for
    engines on several devices. On one device they take turns.
    """

    def __init__(
        self, trio: Trio, settings: Settings, n_seats: int = 1, *, side_by_side: bool = False
    ) -> None:
        self._trio, self._settings = trio, settings
        self._requests = Requests(trio)
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
            if settings.speculative:
                policy = speculating(policy)
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
                answer = self._requests.submit(trajectory, request)
                if answer is None:
                    return
        except StopIteration as stop:
            yield self._finish(trajectory, stop.value)
        except ContextOverflow as error:
            yield self._finish(trajectory, "context") if trajectory.steps else self._fail(trajectory, error)
        except UnanswerableError as unanswerable:
            yield self._fail(trajectory, unanswerable.error)

    @staticmethod
    def _verdict(trajectory: Trajectory, step: Proposal, reward: float, then: Request) -> events.Judged:
        accepted = isinstance(then, Keep)
        known = None if math.isnan(reward) else reward
        return events.Judged(trajectory.problem.id, step.text, len(step.ids), known, accepted)

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
        elif isinstance(update, (jobs.Proposed, jobs.Checked)):
            trajectory.refused += update.refused if isinstance(update, jobs.Checked) else 0
            yield from self._advance(trajectory, update)
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
        if isinstance(trajectory.request, (Propose, Check)):
            return trajectory.request.begun
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
        """A generator discards what it sampled in vain, even if the cache could serve the same tokens again.

        So does a target with what it refused, and a draft keeps what was accepted.
        """
        if role == "prm":
            return usage
        kept = sum(len(step.ids) for step in trajectory.kept if step.author == role)
        if role == "draft":
            kept += sum(step.drafted or 0 for step in trajectory.kept)
        refused = trajectory.refused if role == "target" else 0
        return replace(usage, discarded=usage.generated - kept + refused)

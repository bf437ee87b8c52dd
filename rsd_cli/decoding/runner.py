"""Seats problems, drives their policies over the engines and yields events. The same loop for one and for many.

A paused policy is a waiting problem: each answer of an engine is sent into its policy, and the policy's next
request becomes that seat's next job. A problem that can't be answered fails by itself.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.decoding import events
from rsd_cli.decoding.participants import UnanswerableError
from rsd_cli.decoding.policies import Grade, Judge, Keep, Request, Write, known
from rsd_cli.decoding.requests import Requests
from rsd_cli.decoding.speculative import speculating
from rsd_cli.decoding.strategies import Rulebook, parse
from rsd_cli.decoding.trajectory import Pending, Trajectory
from rsd_cli.engine import jobs
from rsd_cli.engine.jobs import ContextOverflow
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.errors import ModelError, ResourceError
from rsd_cli.records import RoleTime, Usage, total, total_time

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from rsd_cli.decoding.participants import Trio
    from rsd_cli.decoding.policies import Proposal
    from rsd_cli.decoding.trajectory import Answer, Participant, Problem, Settings
    from rsd_cli.engine.seat import Seat
    from rsd_cli.errors import RSDError
    from rsd_cli.records import EndedBy, Role

    Told = Answer | Sequence[Answer] | EndedBy | None  # what a policy is sent; the last two for a Keep
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
    """Answers problems in as many seats as its engines have; one takes as many as its strategy is wide.

    With `side_by_side` all engines with work step at once, each in a thread (llama_decode releases the GIL): for
    engines on several devices. On one device they take turns. A `rulebook` makes it part of a longer run.
    """

    def __init__(
        self,
        trio: Trio,
        settings: Settings,
        n_seats: int = 1,
        *,
        side_by_side: bool = False,
        rulebook: Rulebook | None = None,
    ) -> None:
        self._trio, self._settings = trio, settings
        self._requests, self._rulebook = Requests(trio), rulebook or Rulebook()
        self._n_seats, self._free = n_seats, deque(range(n_seats))
        self._next: Problem | None = None  # one that has arrived and waits for enough seats
        self._seated: dict[int, Trajectory] = {}
        self._threads = ThreadPoolExecutor(3, "engine") if side_by_side else None

    def run(self, problems: Iterable[Problem | None]) -> Generator[Happened, None, None]:
        """Answer all problems; on an abort the seated ones end as they are and the rest is not begun.

        A None among the problems means that the next one has not arrived yet.
        """
        waiting: Iterator[Problem | None] | None = iter(problems)
        try:
            while waiting or self._next or self._seated:
                waiting = yield from self._fill(waiting)
                yield from self._stop_overdue()
                for role, update in self._step():
                    yield from self._route(role, update)
                if waiting and not self._seated:
                    time.sleep(IDLE_SECONDS)
        except DecodeAborted:
            for trajectory in self._trajectories():
                yield from self._stop(trajectory, "interrupted")
        finally:  # an error, or whoever closed this, leaves seats that the next run would decode beside its own
            if self._threads:
                self._threads.shutdown()
            for trajectory in self._trajectories():
                self._drop(trajectory)

    def _step(self) -> Iterator[tuple[Role, jobs.Update]]:
        """One decode of the engine whose batch is fullest: the others' seats wait until theirs is worth one."""
        busy = {role: engine for role, engine in self._trio.loaded().items() if engine.n_waiting}
        if self._threads is None and busy:
            role = max(busy, key=lambda role: busy[role].n_waiting)
            yield from ((role, update) for update in busy[role].step())
        elif self._threads:
            steps = {role: self._threads.submit(engine.step) for role, engine in busy.items()}
            wait(steps.values())  # also where one fails: nobody touches a seat of an engine that is stepping
            done = [(role, step.result()) for role, step in steps.items()]
            yield from ((role, update) for role, updates in done for update in updates)

    def _fill(
        self, waiting: Iterator[Problem | None] | None
    ) -> Generator[Happened, None, Iterator[Problem | None] | None]:
        """Seat what has arrived; gives what is left of the input, None at its end."""
        while self._free and (waiting or self._next):
            if self._next is None:
                try:
                    self._next = next(waiting) if waiting else None
                except StopIteration:
                    return None
            if self._next is None or not (yield from self._seat(self._next)):
                break
            self._next = None
        return waiting

    def _seat(self, problem: Problem) -> Generator[Happened, None, bool]:
        """Begin a problem, or say that there are too few free seats for it now."""
        settings = problem.settings or self._settings
        strategy = parse(settings.strategy)
        if strategy.width > self._n_seats:
            error = ResourceError(
                f"--strategy {strategy} needs {strategy.width} seats, there are {self._n_seats}.",
                "Choose a smaller @N.",
            )
            yield Failed(problem, error)
            return True
        if strategy.width > len(self._free):
            return False
        seats = tuple(self._free.popleft() for _ in range(strategy.width))
        policy = strategy.start(self._rulebook.rules(strategy, settings, problem))
        policy = speculating(policy) if settings.speculative and strategy.has_pair else policy
        trajectory = Trajectory(problem, seats, policy, settings)
        self._seated |= dict.fromkeys(seats, trajectory)
        yield from self._advance(trajectory, None)
        return True

    def _trajectories(self) -> list[Trajectory]:
        """All that are seated, each once."""
        return list({trajectory.seats: trajectory for trajectory in self._seated.values()}.values())

    def _stop_overdue(self) -> Iterator[Happened]:
        for trajectory in self._trajectories():
            if trajectory.overdue:
                yield from self._stop(trajectory, "timeout")

    def _advance(self, trajectory: Trajectory, answer: Told) -> Iterator[Happened]:
        """Send an answer into the policy until it asks an engine for something, or is over."""
        try:
            while True:
                asked, trajectory.request = trajectory.request, trajectory.policy.send(answer)
                request = trajectory.request
                if isinstance(asked, Judge | Grade) and isinstance(answer, float):
                    yield from self._verdict(trajectory, asked.step, answer)
                if isinstance(request, Keep):
                    answer = trajectory.keep(request)
                    yield events.Kept(trajectory.problem.id, trajectory.steps[-1])
                    continue
                yield from self._judging(trajectory)
                trajectory.answers = []
                for each in trajectory.requests:
                    trajectory.answers.append(self._requests.submit(trajectory, each))
                if any(isinstance(each, Pending) for each in trajectory.answers):
                    yield from self._requests.unread(trajectory)
                    return
                answer = self._told(trajectory)
        except StopIteration as stop:
            yield self._finish(trajectory, stop.value)
        except ContextOverflow as error:
            yield self._finish(trajectory, "context") if trajectory.steps else self._fail(trajectory, error)
        except UnanswerableError as unanswerable:
            yield self._fail(trajectory, unanswerable.error)

    @staticmethod
    def _judging(trajectory: Trajectory) -> Iterator[events.Judging]:
        kinds = {type(request) for request in trajectory.requests}
        if Judge in kinds or Grade in kinds:
            yield events.Judging(trajectory.problem.id, "prm" if Judge in kinds else "target")

    @staticmethod
    def _told(trajectory: Trajectory) -> Told:
        """What the policy is sent when all answers are there: one, or a list to a list."""
        answers = [answer for answer in trajectory.answers if not isinstance(answer, Pending)]
        return answers[0] if isinstance(trajectory.request, Request) else answers

    @staticmethod
    def _verdict(trajectory: Trajectory, step: Proposal, reward: float) -> Iterator[events.Judged]:
        if step.author == "draft":
            then = trajectory.request
            stays = then.beside if isinstance(then, Write) else then.step if isinstance(then, Keep) else None
            yield events.Judged(trajectory.problem.id, step.text, len(step.ids), known(reward), stays is step)

    def _route(self, role: Role, update: jobs.Update) -> Iterator[Happened]:
        """Turn what an engine did for a seat into events, and its results into answers for the policy."""
        trajectory = self._seated.get(update.seat)
        if trajectory is None:  # it failed in another of its seats in this very step
            return
        name, lane = trajectory.problem.id, trajectory.seats.index(update.seat)
        if isinstance(update, jobs.Fed):
            yield events.Reading(name, role, update.done, update.total)
        elif isinstance(update, jobs.Sampled) and role != "prm":
            trajectory.first_token_at = trajectory.first_token_at or time.perf_counter()
            yield events.Streamed(name, role, update.text, lane)
        elif isinstance(update, jobs.Written | jobs.Observed | jobs.Proposed | jobs.Checked):
            pending = Pending(role, lane)
            if trajectory.answered(pending, self._requests.answer(trajectory, pending, update)):
                yield from self._advance(trajectory, self._told(trajectory))
        elif isinstance(update, jobs.Broken):
            yield self._fail(trajectory, update.error)

    def _stop(self, trajectory: Trajectory, ended_by: EndedBy) -> Iterator[Happened]:
        """Keep what is there of the steps being written or judged, of several the first, and end."""
        for step in self._requests.unfinished(trajectory):
            trajectory.keep(Keep(step))
            yield events.Kept(trajectory.problem.id, trajectory.steps[-1])
        yield self._finish(trajectory, ended_by)

    def _finish(self, trajectory: Trajectory, ended_by: EndedBy) -> Finished:
        """Free the seats in every engine; what they hold beyond the final text counts as discarded."""
        usage: dict[Role, Usage] = {}
        times: dict[Role, RoleTime] = {}
        for role, participant in trajectory.participants.items():
            seats = self._released(role, trajectory, self._memory(participant))
            used = replace(total(seat.usage for seat in seats), prompt=len(participant.prompt))
            usage[role] = self._with_discarded(role, trajectory, used)
            times[role] = total_time(seat.time for seat in seats)
        self._leave(trajectory)
        return Finished(trajectory, ended_by, usage, times)

    @staticmethod
    def _memory(participant: Participant) -> Sequence[int]:
        """The final text as it knows it; nothing where a PRM's template refuses steps that nobody judged."""
        try:
            return participant.context
        except ModelError:
            return ()

    def _released(self, role: Role, trajectory: Trajectory, kept: Sequence[int]) -> list[Seat]:
        """The trajectory's seats in one engine, with their counts."""
        return [self._trio.engine(role).release(seat, kept) for seat in trajectory.seats]

    def _fail(self, trajectory: Trajectory, error: RSDError) -> Failed:
        self._drop(trajectory)
        return Failed(trajectory.problem, error)

    def _drop(self, trajectory: Trajectory) -> None:
        """Free the seats in every engine, whatever is in them."""
        for role in trajectory.participants:
            self._released(role, trajectory, ())
        self._leave(trajectory)

    def _leave(self, trajectory: Trajectory) -> None:
        for seat in trajectory.seats:
            del self._seated[seat]
            self._free.append(seat)
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
            kept += sum(step.drafted for step in trajectory.kept)
        refused = trajectory.refused if role == "target" else 0
        return replace(usage, discarded=usage.generated - kept + refused)

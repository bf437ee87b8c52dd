"""A conversation with loaded models: asks, asks again, compares, and keeps all of it. Knows no commands."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from rsd_cli.chat.journal import turn_line
from rsd_cli.cli import notes
from rsd_cli.cli.method import begun_anew
from rsd_cli.cli.read_ahead import WRITERS, ReadAhead
from rsd_cli.cli.recording import recorded
from rsd_cli.decoding import events
from rsd_cli.decoding.choosing import chosen, delivered
from rsd_cli.decoding.participants import STEP_ROOM
from rsd_cli.decoding.runner import Runner, finished
from rsd_cli.decoding.strategies import Rulebook, asks_likelihoods, check_sampling, parse, speculates
from rsd_cli.decoding.trajectory import Problem
from rsd_cli.display.chat import Room
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.errors import UsageError
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.chat.conversation import Conversation
    from rsd_cli.chat.journal import Journal, Kept
    from rsd_cli.cli.interrupt import Interrupt
    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.trio import LoadedTrio
    from rsd_cli.decoding.trajectory import Settings, Trajectory
    from rsd_cli.records import Record

NEARLY_FULL = 0.8  # of the smallest context, from where on it is said


@dataclass(frozen=True)
class Answered:
    """An answer, and how it was made: with its tokens in each model."""

    record: Record
    trajectory: Trajectory


@dataclass
class Talk:
    """The conversation of one process: `kept` is what its journal would tell.

    `threshold` is the trio's, `described` what records say of how the models are set up. `leaves_notes` lets a crash
    of the engine end in the same conversation, opened again, from the first question of this process on: one that
    crashes before would do so for ever. A budget of a run is one of all answers of the process.
    """

    loaded: LoadedTrio
    interrupt: Interrupt
    screen: Screen
    described: dict[str, Any]
    kept: Kept
    journal: Journal
    threshold: float
    leaves_notes: bool = False
    has_asked: bool = False
    rooms: tuple[Room, ...] = ()
    rulebook: Rulebook = field(default_factory=Rulebook)
    read_ahead: ReadAhead = field(init=False)

    def __post_init__(self) -> None:
        self.read_ahead = ReadAhead(self)

    @property
    def conversation(self) -> Conversation:
        """The turns so far."""
        return self.kept.conversation

    @property
    def settings(self) -> Settings:
        """What the next question is asked with."""
        return self.kept.settings

    def last(self) -> Record:
        """The newest turn; an error if there is none."""
        if self.conversation.last is None:
            raise UsageError("Nothing was asked yet.", "Ask something first.")
        return self.conversation.last

    def ask(self, question: str, started: float | None = None) -> Record:
        """Answer a question behind what was said, and keep it; one of which nothing was written is not kept."""
        return self._turn(question, self.conversation, self.settings, started)

    def ask_again(self, question: str, seed: int | None = None) -> Record:
        """Answer this in place of the newest question; what was there stays until there is an answer."""
        settings = self.settings if seed is None else replace(self.settings, seed=seed)
        return self._turn(question, self.conversation.undone(), settings, again=True)

    def alone(self) -> Record:
        """The newest question answered by the target alone; not part of the conversation."""
        last = self.last()
        settings = replace(self.settings, strategy="target", seed=last.seed)
        return self._answer(last.question, self.conversation.undone(), settings, time.perf_counter()).record

    def leave_note(self) -> None:
        """Let a crash from now on end in this conversation, if it is to and something was asked."""
        if self.leaves_notes and self.has_asked:
            notes.leave({"chat": self.kept.id})

    def _turn(
        self,
        question: str,
        before: Conversation,
        settings: Settings,
        started: float | None = None,
        *,
        again: bool = False,
    ) -> Record:
        check_sampling(parse(settings.strategy), settings.sampling.temperature if settings.sampling else 0.0)
        self._check_pair(settings)
        self._check_room(question, before, settings)
        self.kept = replace(self.kept, unanswered=question)
        self.journal.write("asked", question=question)
        self.has_asked = True
        self.leave_note()
        answered = self._answer(question, before, settings, started or time.perf_counter())
        record = answered.record
        if record.answer.strip():
            self._keep(before.answered(record))
            self.loaded.remember(answered.trajectory, self.conversation.answers)
            self.journal.write_line(turn_line(record, again=again))
        return record

    def _answer(self, question: str, before: Conversation, settings: Settings, started: float) -> Answered:
        """Answer once, or as often as the strategy wants and choose."""
        name = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=6).hexdigest()
        problem = Problem(name, question, before.messages, before.solutions)
        samples = parse(settings.strategy).samples
        answers: list[Answered] = []
        with ExitStack() as stack:
            display = self.screen.display(stack, question, settings.strategy, self.loaded)
            runner = Runner(self.loaded, settings, self.loaded.shape.n_seats, rulebook=self.rulebook)
            for happened in runner.run([replace(problem, branch=branch) for branch in range(samples)]):
                done = finished(happened)
                if done:
                    record = recorded(done, self.loaded, self.described, started)
                    answers.append(Answered(record, done.trajectory))
                elif display and samples == 1:
                    display.handle(cast("events.Event", happened))
                if isinstance(happened, events.Streamed):
                    self.load(settings)  # while the draft writes its first step
            answered = _chosen(answers)
            if display:
                for step in answered.record.steps if samples > 1 else ():
                    display.handle(events.Kept(name, step))
                display.handle(events.Ended(name, answered.record))
        return answered

    def load(self, settings: Settings | None = None) -> None:
        """Begin to load what the strategy needs."""
        self.loaded.load_all(parse((settings or self.settings).strategy).roles)

    def _check_pair(self, settings: Settings) -> None:
        """Refuse models that are no pair, where they have to be, before anything is asked; that waits for both."""
        if speculates(settings) or asks_likelihoods(settings):
            self.load(settings)
            self.loaded.check_pair(settings)

    def _check_room(self, question: str, before: Conversation, settings: Settings) -> None:
        """Refuse what a model that is there already has no room for; others say so when they are asked."""
        for room in self._measure(before, question, settings):
            if room.used + STEP_ROOM > room.n_ctx:
                raise UsageError(
                    f"The conversation with this question takes {room.used:,} tokens of the {room.role} model's "
                    f"context of {room.n_ctx:,}, which leaves no room for an answer.",
                    "/compact drops the oldest turns, /clear begins anew; --ctx makes more room."
                    if before.turns
                    else "Shorten it, or give more room with --ctx.",
                )

    def measure(self) -> None:
        """Find out how full the models' contexts are."""
        self.rooms = self._measure(self.conversation, "", self.settings)

    def _measure(self, talk: Conversation, question: str, settings: Settings) -> tuple[Room, ...]:
        """The tokens of a conversation in each loaded model."""
        loaded, rooms = self.loaded.loaded(), []
        for role in WRITERS:
            if role in loaded:
                used = len(self.loaded.prompt(role, settings.system, question, talk.messages))
                rooms.append(Room(role, used, loaded[role].n_ctx))
        # The family's first use may hash a file, which Ctrl-C ends; the prompt comes back then.
        with suppress(DecodeAborted):
            if "prm" in loaded and self.loaded.family and not isinstance(self.loaded.family, Confidence):
                ids = self.loaded.family.context(Solution(question, earlier=talk.solutions))
                rooms.append(Room("prm", len(ids), loaded["prm"].n_ctx))
        return tuple(rooms)

    @property
    def fullest(self) -> Room | None:
        """The model with the least room left, as last measured."""
        return max(self.rooms, key=lambda room: room.share, default=None)

    def undo(self) -> Record:
        """Take the newest turn back."""
        last = self.last()
        self._keep(self.conversation.undone())
        self.journal.write("undone")
        return last

    def drop(self, n: int) -> None:
        """Drop the `n` oldest turns."""
        self._keep(self.conversation.without_oldest(n))
        self.journal.write("dropped", turns=n)

    def turns_to_drop(self) -> int:
        """How many of the oldest turns must go until half of the smallest context is free; at least one."""
        turns = len(self.conversation.turns)
        for n in range(1, turns):
            rooms = self._measure(self.conversation.without_oldest(n), "", self.settings)
            if all(room.share <= 0.5 for room in rooms):
                return n
        return turns

    def set(self, settings: Settings) -> None:
        """Use other settings from now on; another strategy begins anew."""
        if settings.strategy != self.settings.strategy:
            settings = begun_anew(settings, self.threshold)
        self._check_seats(settings)
        self._use(settings)

    def replace_by(self, conversation: Conversation, settings: Settings) -> None:
        """Go on with another conversation and its own settings, in the same journal."""
        self._check_seats(settings)  # before anything is dropped
        self.drop(len(self.conversation.turns))
        self._use(settings)
        for turn in conversation.turns:
            self.journal.write_line(turn_line(turn))
        self._keep(conversation)

    def _check_seats(self, settings: Settings) -> None:
        strategy = parse(settings.strategy)
        if strategy.width > self.loaded.shape.n_seats:
            raise UsageError(
                f"--strategy {strategy} writes {strategy.width} steps side by side, more than there are seats.",
                f"Begin with it: rsd chat --strategy {strategy}",
            )

    def _use(self, settings: Settings) -> None:
        self.kept = replace(self.kept, settings=settings)
        self.journal.write("set", settings=asdict(settings))

    def _keep(self, conversation: Conversation) -> None:
        self.kept = replace(self.kept, conversation=conversation, unanswered="")


def _chosen(answers: Sequence[Answered]) -> Answered:
    """The one that the strategy delivers, with what all of them cost."""
    if len(answers) == 1:
        return answers[0]
    drawn = sorted(answers, key=lambda answered: answered.trajectory.problem.branch)
    records = [answered.record for answered in drawn]
    return Answered(delivered(records), drawn[chosen(records)].trajectory)

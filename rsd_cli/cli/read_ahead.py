"""Lets the models read what was said while a person types, so that a question finds all of it in their caches.

The target is fed lazily within an answer; between answers there is time. It stops at once when something is typed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import ContextOverflow, Read
from rsd_cli.engine.llama import DecodeAborted
from rsd_cli.engine.seat import common_prefix
from rsd_cli.errors import RSDError
from rsd_cli.rewards.families import Confidence, Solution

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rsd_cli.cli.conversing import Talk
    from rsd_cli.records import Author, Role

PIECE = 64  # tokens read at a time: what is lost at most when reading stops
LOOK_SECONDS = 0.05
WRITERS: tuple[Author, ...] = ("draft", "target")
QUESTIONS = (
    "one",
    "two",
)  # two questions that have nothing in common: what is alike stands before any question


class ReadAhead:
    """A context manager around a prompt. `fed` counts the tokens that were read so, by role."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._over = threading.Event()
        self._over.set()
        self._done: set[Role] = set()
        self.pausing = threading.Event()
        talk.loaded.is_paused = self.pausing.is_set
        self.fed: dict[Role, int] = {}

    def __enter__(self) -> ReadAhead:
        self.stop()
        self._done = set()
        over = threading.Event()
        threading.Thread(target=self._run, args=(over,), daemon=True).start()
        self._over = over
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let nothing be read any more; what interrupts the wait for that comes when no engine is in use.

        A thread whose `join` was interrupted counts as over in Python 3.11, though it goes on.
        """
        interruption: BaseException | None = None
        self.pausing.set()
        while not self._over.is_set():
            try:
                self._over.wait()
            except (KeyboardInterrupt, SystemExit) as error:  # noqa: PERF203 - it comes once, if at all
                interruption = error
        self.pausing.clear()
        if interruption:
            raise interruption

    def wait(self) -> None:
        """Until all that is loaded has read all."""
        while self._done != set(self._talk.loaded.loaded()):
            time.sleep(LOOK_SECONDS)

    def _run(self, over: threading.Event) -> None:
        try:
            self._read_all()
        finally:
            over.set()

    def _read_all(self) -> None:
        """Read in each model as soon as it is there; what fails is told when a question is asked."""
        contexts = {"draft": self._writers, "target": self._writers, "prm": self._critics}
        while not self.pausing.wait(LOOK_SECONDS):
            for role in self._talk.loaded.loaded():
                if role not in self._done and not self.pausing.is_set():
                    with contextlib.suppress(DecodeAborted, ContextOverflow, RSDError):
                        self._read(role, contexts[role](role))
                    self._done.add(role)

    def _writers(self, role: Role) -> list[int]:
        talk = self._talk
        writer: Author = "draft" if role == "draft" else "target"
        return alike(
            lambda question: talk.loaded.prompt(
                writer, talk.settings.system, question, talk.conversation.messages
            )
        )

    def _critics(self, _role: Role) -> list[int]:
        family, earlier = self._talk.loaded.family, self._talk.conversation.solutions
        if family is None or isinstance(family, Confidence):
            return []
        return alike(lambda question: family.context(Solution(question, earlier=earlier)))

    def _read(self, role: Role, ids: list[int]) -> None:
        engine = self._talk.loaded.engine(role)
        known = common_prefix(engine.seats[0].tokens, ids)
        try:
            for end in [*range(known + PIECE, len(ids), PIECE), len(ids)] if len(ids) > known else []:
                engine.submit(0, Read(ids[:end], (), (end,)))
                while engine.busy:
                    engine.step()
        finally:
            self.fed[role] = self.fed.get(role, 0) + engine.release(0, ids).usage.fed


def alike(prompt: Callable[[str], list[int]]) -> list[int]:
    """What stands before the next question, whatever that will be."""
    one, two = (prompt(question) for question in QUESTIONS)
    return one[: common_prefix(one, two)]

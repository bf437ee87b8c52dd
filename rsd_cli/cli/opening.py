"""Opens a conversation for `rsd ask` and `rsd chat`: a new one or one from disk, its settings and its models."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.chat.journal import Journal, Kept, data_directory, find, new_id, opening, read
from rsd_cli.cli import room, setup
from rsd_cli.cli.conversing import Talk
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.method import Wishes, method_of
from rsd_cli.cli.options import DEFAULT_TRIO
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.trajectory import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.cli.method import Method
    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.trio import Shape
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.records import Role

ALL: tuple[Role, ...] = ("draft", "prm", "target")


@dataclass(frozen=True)
class Given:
    """What the command line says of models and settings; None where it says nothing."""

    trio: str | None = None
    draft: str | None = None
    target: str | None = None
    prm: str | None = None
    wishes: Wishes | None = None
    max_tokens: int | None = None
    max_steps: int | None = None
    temperature: float | None = None
    seed: int | None = None
    system: str | None = None

    def settings(self, method: Method, found: FoundTrio, before: Settings | None) -> Settings:
        """A conversation's settings: what is given, else those that it had, else the trio's."""
        values = {
            "max_tokens": self.max_tokens,
            "max_steps": self.max_steps,
            "seed": self.seed,
            "system": self.system,
        }
        sampling = setup.make_sampling(found.sampling, temperature=self.temperature)
        if before and before.sampling:
            warmth = before.sampling.temperature if self.temperature is None else self.temperature
            sampling = replace(before.sampling, temperature=warmth)
        changed = {key: value for key, value in values.items() if value is not None}
        base = replace(before or Settings(system=MATHS), sampling=sampling, **changed)  # type: ignore[arg-type]  # by name
        return base if before and not self.wishes else method.settle(base, found.threshold)


@dataclass(frozen=True)
class Opening:
    """Which conversation to open: `resumed` names one on disk; `journals` keeps it there.

    One with many turns may come to need every model, a single question only those of its strategy.
    """

    given: Given
    access: setup.Access
    shape: Shape
    screen: Screen
    has_many_turns: bool
    resumed: str | None = None
    journals: bool = True


@contextlib.contextmanager
def opened(wanted: Opening, started: float) -> Iterator[tuple[Talk, float]]:
    """The conversation with its models, and when it began with the time for downloads left out."""
    place = find(wanted.resumed) if wanted.resumed else None
    known = (
        Journal(place) if place and wanted.journals else None
    )  # before it is read: nobody else writes to it now
    kept = read(place) if place else None
    given = wanted.given
    name = given.trio or (kept.trio if kept else DEFAULT_TRIO)
    choice = setup.Choice(name, given.draft, given.target, given.prm)
    method = method_of(given.wishes or Wishes(kept.settings.strategy if kept else "rsd"))
    roles = ALL if wanted.has_many_turns else method.strategy.roles
    found = setup.find(choice, wanted.access, roles)
    settings = given.settings(method, found.trio, kept.settings if kept else None)
    shape = room.with_seats(found.trio.models, wanted.shape, room.seats_of_samples(method.strategy))
    talked = replace(kept, settings=settings) if kept else Kept(new_id(), name, settings)
    interrupt = Interrupt()
    prm = found.trio.prm if "prm" in roles else None
    loaded = LoadedTrio(found.trio.models, prm, shape, interrupt)
    journal = known or Journal(data_directory() / f"{talked.id}.jsonl" if wanted.journals else None)
    described = {"trio": name, "prm": found.trio.prm.name, **shape.described}
    talk = Talk(loaded, interrupt, wanted.screen, described, talked, journal, found.trio.threshold)
    if kept is None:
        journal.write_line(opening(talked))
    elif settings != kept.settings:
        talk.set(settings)
    with interrupt:
        try:
            yield talk, started + found.download_seconds
        finally:
            journal.close()
            loaded.close()


def now() -> float:
    """About when this process began, on `time.perf_counter`'s scale."""
    return time.perf_counter() - time.process_time()

"""Opens a conversation for `rsd ask` and `rsd chat`: a new one or one from disk, its settings and its models."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rsd_cli.chat.journal import Journal, Kept, data_directory, find, new_id, opening, read
from rsd_cli.cli import setup
from rsd_cli.cli.conversing import Talk
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.trajectory import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.trio import Shape
    from rsd_cli.cli.warm import FoundTrio
    from rsd_cli.records import Role

DEFAULT_TRIO = "starter"
ALL: tuple[Role, ...] = ("draft", "prm", "target")


@dataclass(frozen=True)
class Given:
    """What the command line says of models and settings; None where it says nothing."""

    trio: str | None = None
    draft: str | None = None
    target: str | None = None
    prm: str | None = None
    strategy: str | None = None
    threshold: float | None = None
    max_tokens: int | None = None
    max_steps: int | None = None
    temperature: float | None = None
    seed: int | None = None
    system: str | None = None

    def settings(self, found: FoundTrio, before: Settings | None) -> Settings:
        """A conversation's settings: what is given, else those that it had, else the trio's."""
        values = {
            "strategy": self.strategy,
            "threshold": self.threshold,
            "max_tokens": self.max_tokens,
            "max_steps": self.max_steps,
            "seed": self.seed,
            "system": self.system,
        }
        sampling = setup.make_sampling(found.sampling, temperature=self.temperature)
        fresh = Settings(threshold=found.threshold, system=MATHS, sampling=sampling)
        if before and before.sampling:
            warmth = before.sampling.temperature if self.temperature is None else self.temperature
            sampling = replace(before.sampling, temperature=warmth)
        changed = {key: value for key, value in values.items() if value is not None}
        return replace(before or fresh, sampling=sampling, **changed)  # type: ignore[arg-type]  # by name


@dataclass(frozen=True)
class Opening:
    """Which conversation to open: `resumed` names one on disk; `journals` keeps it there."""

    given: Given
    access: setup.Access
    shape: Shape
    screen: Screen
    roles: tuple[Role, ...]
    resumed: str | None = None
    journals: bool = True


@contextlib.contextmanager
def opened(wanted: Opening, started: float) -> Iterator[tuple[Talk, float]]:
    """The conversation with its models, and when it began with the time for downloads left out."""
    place = find(wanted.resumed) if wanted.resumed else None
    kept = read(place) if place else None
    given, shape = wanted.given, wanted.shape
    name = given.trio or (kept.trio if kept else DEFAULT_TRIO)
    choice = setup.Choice(name, given.draft, given.target, given.prm)
    found = setup.find(choice, wanted.access, wanted.roles)
    setup.check_memory(found.trio.models, shape)
    settings = given.settings(found.trio, kept.settings if kept else None)
    talked = replace(kept, settings=settings) if kept else Kept(new_id(), name, settings)
    interrupt = Interrupt()
    prm = found.trio.prm if "prm" in wanted.roles else None
    loaded = LoadedTrio(found.trio.models, prm, shape, interrupt)
    path = place or data_directory() / f"{talked.id}.jsonl"
    journal = Journal(path if wanted.journals else None)
    described = {"trio": name, "prm": found.trio.prm.name, **asdict(shape)}
    talk = Talk(loaded, interrupt, wanted.screen, described, talked, journal)
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

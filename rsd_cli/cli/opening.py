"""Opens a conversation for `rsd ask` and `rsd chat`: a new one or one from disk, its settings and its models."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from rsd_cli.chat.journal import Journal, Kept, Parts, data_directory, find, new_id, opening, read
from rsd_cli.cli import room, setup
from rsd_cli.cli.conversing import Talk
from rsd_cli.cli.interrupt import Interrupt
from rsd_cli.cli.method import Wishes, going_on, method_of
from rsd_cli.cli.options import DEFAULT_TRIO
from rsd_cli.cli.trio import LoadedTrio
from rsd_cli.decoding.prompts import MATHS
from rsd_cli.decoding.strategies import ALL
from rsd_cli.decoding.trajectory import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rsd_cli.cli.method import Method
    from rsd_cli.cli.screen import Screen
    from rsd_cli.cli.shape import Shape
    from rsd_cli.cli.warm import FoundTrio


@dataclass(frozen=True)
class Given:
    """What the command line says of models and settings; None where it says nothing."""

    trio: str | None = None
    draft: str | None = None
    target: str | None = None
    prm: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    max_tokens: int | None = None
    max_steps: int | None = None
    temperature: float | None = None
    seed: int | None = None
    system: str | None = None

    def choice(self, before: Kept | None) -> setup.Choice:
        """A conversation's models: what is named, else those that it had; a trio takes the place of all of them."""
        kept = before.parts if before and self.trio is None else Parts()
        trio = self.trio or (before.trio if before else DEFAULT_TRIO)
        return setup.Choice(trio, self.draft or kept.draft, self.target or kept.target, self.prm or kept.prm)

    def method(self, before: Settings | None) -> Method:
        """How a conversation's answers are made; what was only kept is not checked anew."""
        if before and self.wishes == Wishes():
            return method_of(Wishes(before.strategy))
        return method_of(going_on(self.wishes, before) if before else self.wishes)

    def has_another_prm(self, kept: Kept) -> bool:
        """Whether rewards are on another scale than the conversation's were."""
        named = self.choice(kept)
        return (named.trio, named.prm) != (kept.trio, kept.parts.prm)

    def settings(self, method: Method, found: FoundTrio, kept: Kept | None) -> Settings:
        """A conversation's settings: what is given, else those that it had, else the trio's."""
        before = kept.settings if kept else None
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
        settled = base if before and self.wishes == Wishes() else method.settle(base, found.threshold)
        by_prm = method.strategy.kind.threshold is None and self.wishes.threshold is None
        return (
            replace(settled, threshold=found.threshold)
            if kept and by_prm and self.has_another_prm(kept)
            else settled
        )


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
    before = kept.settings if kept else None
    method = wanted.given.method(before)
    roles = ALL if wanted.has_many_turns else method.strategy.roles
    found = setup.find(wanted.given.choice(kept), wanted.access, roles)
    settings = wanted.given.settings(method, found.trio, kept)
    strategy = method.strategy
    shape = room.with_seats(found.trio.models, wanted.shape, room.seats_of_samples(strategy), strategy.width)
    talked = _talked(kept, found.choice, settings)
    interrupt = Interrupt()
    prm = found.trio.prm if "prm" in roles else None
    loaded = LoadedTrio(found.trio.models, prm, shape, interrupt)
    journal = known or Journal(data_directory() / f"{talked.id}.jsonl" if wanted.journals else None)
    described = {"trio": talked.trio, "prm": found.trio.prm.name, **shape.described}
    talk = Talk(loaded, interrupt, wanted.screen, described, talked, journal, found.trio.threshold)
    _note(talk, kept)
    with interrupt:
        try:
            yield talk, started + found.download_seconds
        finally:
            journal.close()
            talk.read_ahead.stop()
            loaded.close()


def _talked(kept: Kept | None, choice: setup.Choice, settings: Settings) -> Kept:
    """The conversation with the models and settings that it has from now on."""
    parts = Parts(choice.draft, choice.target, choice.prm)
    talked = kept or Kept(new_id(), choice.trio, settings)
    return replace(talked, trio=choice.trio, parts=parts, settings=settings)


def _note(talk: Talk, kept: Kept | None) -> None:
    """Write down how a conversation begins, or what has changed of one that was kept."""
    talked = talk.kept
    if kept is None:
        talk.journal.begin(opening(talked))
        return
    if (talked.trio, talked.parts) != (kept.trio, kept.parts):
        talk.journal.write("models", trio=talked.trio, parts=asdict(talked.parts))
    if talked.settings != kept.settings:
        talk.set(talked.settings)


def now() -> float:
    """About when this process began, on `time.perf_counter`'s scale."""
    return time.perf_counter() - time.process_time()

"""A seat of an engine: what a trajectory's model knows, what it is doing, and what that has cost. Decodes nothing."""

from __future__ import annotations

import codecs
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from rsd_cli.engine.jobs import Check, Checked, Proposed, Write, Written
from rsd_cli.records import RoleTime, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rsd_cli.engine.context import Row
    from rsd_cli.engine.jobs import Drawn, Job, WrittenEnd
    from rsd_cli.engine.sampling import Sampler
    from rsd_cli.engine.speculation import Draws, Guess


@dataclass
class Writing:
    """The step that a seat is writing. It may have `begun` with tokens, and characters, of earlier jobs."""

    sampler: Sampler
    started: float
    draws: Draws | None = None
    guesses: list[Guess] = field(default_factory=list)
    accepted: int = 0
    begun: int = 0
    begun_text: int = 0
    ended: WrittenEnd | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    states: NDArray[np.float32] | None = None
    n_states: int = 0
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def resume(self, tokens: Sequence[int], text: bytes) -> None:
        """Begin with what earlier jobs have written of the step."""
        self.tokens, self.begun = list(tokens), len(tokens)
        self.begun_text = len(self.read(text))

    @property
    def sampled(self) -> int:
        """How many tokens the job has sampled."""
        return len(self.tokens) - self.begun

    def read(self, piece: bytes, *, final: bool = False) -> str:
        """Add a token's bytes; gives what became printable by them."""
        text = self.decoder.decode(piece, final=final)
        self.text += text
        return text

    def at_separator(self, separator: str, fresh: int) -> Literal["separator"] | None:
        """A step ends with the token that completes the separator, once it says anything at all.

        `fresh` characters are that token's.
        """
        tail = self.text[-(fresh + len(separator) - 1) :]
        return "separator" if separator in tail and self.text.strip() else None

    @property
    def ms(self) -> float:
        """Wall time since the job began."""
        return (time.perf_counter() - self.started) * 1000

    def written(self, seat: int, ended: WrittenEnd) -> Written:
        """What there is of the step."""
        state = None if self.states is None else self.states / np.float32(self.n_states)
        return Written(seat, tuple(self.tokens), self.text, ended, self.ms, tuple(self.drawn), state)

    def chance(self, guess: Guess) -> float:
        """How probable a token was that was just drawn to be proposed."""
        return math.exp(self.sampler.drawn(guess.token).logprob) if guess.chances is None else guess.chance

    def proposed(self, seat: int) -> Proposed:
        """What was sampled in order to propose it."""
        return Proposed(seat, tuple(self.guesses), self.ms)

    def checked(self, seat: int, refused: int) -> Checked:
        """What a check has added to the step."""
        text, tokens = self.text[self.begun_text :], tuple(self.tokens[self.begun :])
        return Checked(seat, tokens, text, self.accepted, refused, self.ended, self.ms, tuple(self.drawn))


@dataclass(frozen=True)
class HeadStart:
    """The first token of a job that may come next, drawn where a hidden state was read."""

    job: Write
    sampler: Sampler
    token: int


@dataclass(eq=False)  # a seat is itself
class Seat:
    """One trajectory's place. `tokens` is what it knows; the first `cached` of them are in its memory.

    `pending` is the position of a token that was sampled for an earlier job and not decoded there, or -1. A seat
    `owes` a decode where the last token that it proposed was counted and never decoded.
    The memory lies in a `stream` of the context or is `parked` as bytes, and is empty where it is neither. A seat
    is `taken` by a trajectory, or else knows what the last one left; `fresh` until its job has decoded anything.
    `siblings` are all seats of its trajectory, and its first `borrowed` tokens were copied from one of them.
    `since` orders the jobs of all seats.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    pending: int = -1
    owes: bool = False
    stream: int | None = None
    parked: bytes | None = None
    taken: bool = False
    fresh: bool = False
    siblings: tuple[int, ...] = ()
    borrowed: int = 0
    since: int = 0
    likely: float = 0.0
    job: Job | None = None
    writing: Writing | None = None
    ahead: HeadStart | None = None
    usage: Usage = field(default_factory=Usage)
    time: RoleTime = field(default_factory=RoleTime)
    snapshots: list[tuple[int, bytes]] = field(default_factory=list)

    def count(self, **more: int) -> None:
        """Add to the usage."""
        self.usage = replace(self.usage, **{key: getattr(self.usage, key) + n for key, n in more.items()})

    @property
    def first_output(self) -> int:
        """The position from which on the job needs outputs."""
        if self.job is None or (isinstance(self.job, Write) and not isinstance(self.job, Check)):
            return len(self.tokens) - 1
        return len(self.job.context) - self.job.n_outputs

    @property
    def goes_on(self) -> bool:
        """Whether the job goes on with a token that it has sampled itself."""
        checks = isinstance(self.job, Check)
        return self.writing is not None and self.writing.sampled > 0 and not checks

    def settle_debt(self) -> None:
        """A proposal that was never decoded makes up for the token that is fed in its place."""
        self.count(fed=-int(self.owes))
        self.owes = False

    def forget(self, kept: int) -> None:
        """Count what the seat knows beyond its first tokens as discarded; what was copied is another's to count."""
        self.count(discarded=max(0, len(self.tokens) - max(kept, self.borrowed)))
        self.borrowed = min(self.borrowed, kept)

    def drop(self) -> None:
        """Be done with the job, finished or not."""
        if self.writing:
            self.writing.sampler.close()
        if self.ahead:
            self.ahead.sampler.close()
        self.job = self.writing = self.ahead = None

    def advance(self, n: int) -> None:
        """`n` more tokens are in the memory; those that this model did not sample itself were fed."""
        start, end = self.cached, self.cached + n
        context = len(self.job.context) if self.job else 0
        foreign = max(0, min(end, context) - start) - (start <= self.pending < end)
        self.count(fed=max(0, foreign))
        self.cached, self.fresh = end, False


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n, block = min(len(a), len(b)), 64
    start = next((i for i in range(0, n, block) if list(a[i : i + block]) != list(b[i : i + block])), n)
    return next((i for i in range(start, n) if a[i] != b[i]), n)


@dataclass(frozen=True)
class Part:
    """What one seat gets of a decode."""

    seat: Seat
    row: Row

    @property
    def is_writing(self) -> bool:
        """Whether the row goes on with what this model wrote: with tokens of the step, or with the one before it.

        Guesses count as tokens of the step.
        """
        job = self.seat.job
        if not isinstance(job, Write):
            return False
        own = self.seat.pending == len(job.context) - 1
        return self.row.position >= len(job.context) - max(job.begun, isinstance(job, Check), own)


def share_time(parts: Sequence[Part], writers: set[int], ms: float) -> None:
    """Share the wall time of a decode among its rows, by tokens: writing (decode) or reading (prompt)."""
    n_tokens = sum(len(part.row.tokens) for part in parts)
    for part in parts:
        share = len(part.row.tokens) / n_tokens
        wrote = part.seat.index in writers
        part.seat.time += RoleTime(0.0 if wrote else share * ms, share * ms if wrote else 0.0)

"""A seat of an engine: what a trajectory's model knows, what it is doing, and what that has cost. Decodes nothing."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rsd_cli.records import RoleTime, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rsd_cli.engine.jobs import Drawn, Job, Write
    from rsd_cli.engine.llama import Sampler


@dataclass
class Writing:
    """The step that a seat is writing."""

    sampler: Sampler
    started: float
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    states: NDArray[np.float32] | None = None
    n_states: int = 0
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )


@dataclass(frozen=True)
class HeadStart:
    """The first token of a job that may come next, drawn where a hidden state was read."""

    job: Write
    sampler: Sampler
    token: int


@dataclass(eq=False)  # a seat is itself
class Seat:
    """One trajectory's place. `tokens` is what it knows; the first `cached` of them are in its memory.

    `pending` is the position of a token that was sampled for an earlier job and not decoded there, or -1.
    The memory lies in a `stream` of the context or is `parked` as bytes, and is empty where it is neither. A seat
    is `taken` by a trajectory, or else knows what the last one left; `fresh` until its job has decoded anything.
    `siblings` are all seats of its trajectory, and its first `borrowed` tokens were copied from one of them.
    `since` orders the jobs of all seats.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    pending: int = -1
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

    def forget(self, kept: int) -> None:
        """Count what the seat knows beyond its first tokens as discarded; what was copied is another's to count."""
        self.count(discarded=max(0, len(self.tokens) - max(kept, self.borrowed)))
        self.borrowed = min(self.borrowed, kept)

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

"""What an engine is asked for, and what it tells while it works. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rsd_cli.errors import RSDError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rsd_cli.engine.sampling import Sampling
    from rsd_cli.engine.speculation import Guess

MAX_SEATS = 256  # llama.cpp has no more sequences side by side
# Of a memory that can't be cut, for each seat: the boundaries around the newest step, and one before.
SNAPSHOTS = 3
WrittenEnd = Literal["separator", "eog", "max_tokens", "context"]


class ContextOverflow(RSDError):  # noqa: N818 - the name says what happened
    """A job's context, with room for a token to write, does not fit into a seat."""

    exit_code = 2

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(
            f"The text is {needed:,} tokens long, {needed - available:,} more than the context of {available:,}.",
            "Shorten it, or raise --ctx if the model allows it.",
        )


@dataclass(frozen=True)
class Write:
    """Sample after `context` until the separator, the end of generation or `max_tokens`.

    `watch` asks for each token's probability, `states` for the mean of their hidden states, which a model that
    computes other logits beside states does not tell. The last `begun` tokens of the context are the step's own,
    written by earlier jobs; what is written goes on from them, and `max_tokens` counts them.
    """

    context: Sequence[int]
    sampling: Sampling
    seed: int
    separator: str
    max_tokens: int
    watch: bool = False
    states: bool = False
    begun: int = 0

    @property
    def n_outputs(self) -> int:
        """How many of the context's last tokens must be decoded by this job, for their outputs."""
        return 1

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Where a seat that can't be cut may be put back to: one before the end, whose output is needed."""
        return (len(self.context) - 1,)


@dataclass(frozen=True)
class Propose(Write):
    """Sample in order to propose: each token is kept with the distribution that it was drawn from.

    The last is the first one that was drawn with a probability below `p_min`. It may depend on what was drawn how
    many more are proposed: each of them is checked by itself.
    """

    p_min: float = 0.0


@dataclass(frozen=True)
class Check(Write):
    """Sample as `Write` does, behind `context` and each of the `guesses` in one decode, while it samples these.

    Their tokens may be any numbers; one that this vocabulary does not have is never sampled. `states` are not had.
    """

    guesses: tuple[Guess, ...] = ()

    def guess(self, i: int) -> Guess | None:
        """The i-th one, or None behind the last."""
        return self.guesses[i] if i < len(self.guesses) else None


@dataclass(frozen=True)
class Read:
    """Feed `context` and read the logits of `tokens` after it, or with `hidden` the last token's hidden state.

    At `boundaries` the context may be cut again by later jobs: before and behind the newest step, say. The
    decode that gives the hidden state also gives the first token of `ahead`, a job over the same context, which
    then begins with it and decodes nothing twice. With `followers` it gives instead the log-probability that these
    tokens follow, each behind the one before: the context holds all of them but the last.
    """

    context: Sequence[int]
    tokens: Sequence[int]
    boundaries: tuple[int, ...]
    hidden: bool = False
    ahead: Write | None = None
    followers: tuple[int, ...] = ()

    @property
    def n_outputs(self) -> int:
        """How many of the context's last tokens must be decoded by this job, for their outputs."""
        return max(1, len(self.followers))


Job = Write | Read


@dataclass(frozen=True)
class Fed:
    """Progress of a seat's reading, in tokens of its job's context."""

    seat: int
    done: int
    total: int


@dataclass(frozen=True)
class Sampled:
    """A seat drew a token; `text` is what became printable by it."""

    seat: int
    text: str


@dataclass(frozen=True)
class Drawn:
    """How sure a model was when it drew a token: natural logarithms over its best candidates."""

    logprob: float
    entropy: float


@dataclass(frozen=True)
class Written:
    """A write job ended. `tokens` were sampled, an end-of-generation token included.

    `drawn` has a value for each token that was watched, `state` the mean hidden state (n_embd values) of the
    tokens that were decoded while the job wrote, which leaves out the last.
    """

    seat: int
    tokens: tuple[int, ...]
    text: str
    ended: WrittenEnd
    ms: float
    drawn: tuple[Drawn, ...] = ()
    state: NDArray[np.float32] | None = None

    @property
    def logprob(self) -> float:
        """Of all watched tokens together."""
        return sum(token.logprob for token in self.drawn)


@dataclass(frozen=True)
class Proposed:
    """A proposing job ended, `ms` after it began."""

    seat: int
    guesses: tuple[Guess, ...]
    ms: float


@dataclass(frozen=True)
class Checked:
    """A checking job ended: `tokens` were sampled by it, the first `accepted` of them as they were guessed.

    `refused` guesses were decoded in vain. `ended` is None where the step goes on.
    """

    seat: int
    tokens: tuple[int, ...]
    text: str
    accepted: int
    refused: int
    ended: WrittenEnd | None
    ms: float
    drawn: tuple[Drawn, ...] = ()

    @property
    def logprob(self) -> float:
        """Of all watched tokens together."""
        return sum(token.logprob for token in self.drawn)


@dataclass(frozen=True)
class Observed:
    """A read job ended with these logits, in the order of the job's tokens, or with this hidden state.

    `logprob` is that of the job's followers together, at temperature 1.
    """

    seat: int
    logits: tuple[float, ...] = ()
    hidden: NDArray[np.float32] | None = None
    logprob: float = math.nan


@dataclass(frozen=True)
class Broken:
    """A job could not be done, and the seat has none now; the other seats go on."""

    seat: int
    error: RSDError


Update = Fed | Sampled | Written | Proposed | Checked | Observed | Broken


def whole(updates: Sequence[Update]) -> Sequence[Update]:
    """The updates; raises what broke a job, for those who can't go on without it."""
    for update in updates:
        if isinstance(update, Broken):
            raise update.error
    return updates

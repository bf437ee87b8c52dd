"""Who writes which step: policies as generators that read like the papers' algorithms. No I/O, no llama.cpp.

A policy yields requests and is sent the answers: `Write` gives a `Proposal`, `Judge` and `Grade` a reward,
`Likelihood` a log-probability, `Propose` and `Check` what an engine says (`Proposed`, `Checked`), `Keep` the reason
why the answer is over, or None while it goes on. A list of requests runs side by side, each in a lane of its own, and
is answered by the list of answers.

Here are the paper's own method and the models alone; successors.py and branching.py have the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rsd_cli.records import Candidate, Guesses, Rejected

if TYPE_CHECKING:
    from rsd_cli.decoding.weighting import Accepts
    from rsd_cli.engine.speculation import Guess
    from rsd_cli.records import Author, EndedBy

AUDITED = 0.25  # share of an audited answer's steps that the target writes as well


@dataclass(frozen=True)
class Proposal:
    """A step as its author wrote it. `ids` are tokens of the author's vocabulary, `logprob` their total.

    `entropy` is that of the first token, in nats; it and `logprob` are known where the author was watched. `guesses`
    were made of its tokens, one by one; None where there was nobody to make them.
    """

    author: Author
    text: str
    ids: tuple[int, ...]
    ended: Literal["separator", "eog", "max_tokens", "context"]
    logprob: float
    ms: float
    entropy: float = math.nan
    guesses: Guesses | None = None

    @property
    def drafted(self) -> int:
        """How many tokens of a step of the target were guessed right."""
        return self.guesses.accepted if self.guesses else 0

    @property
    def is_last(self) -> bool:
        """Whether nothing can follow it."""
        return self.ended != "separator"


@dataclass(frozen=True)
class Write:
    """Let a role write a step behind the kept ones and `after`, or go on with one that it has `begun`.

    `watch` asks for its probabilities; `max_tokens` bounds it besides the answer's own limit. `beside` is a step
    that stays, whatever is written here.
    """

    author: Author
    lane: int = 0
    after: tuple[Proposal, ...] = ()
    begun: Proposal | None = None
    watch: bool = False
    max_tokens: int | None = None
    beside: Proposal | None = None


@dataclass(frozen=True)
class Judge:
    """Let the PRM score a proposed step, which follows the kept ones and `after`; `beside` as in `Write`."""

    step: Proposal
    lane: int = 0
    after: tuple[Proposal, ...] = ()
    beside: Proposal | None = None


@dataclass(frozen=True)
class Grade:
    """Let the target read a proposed step and grade it."""

    step: Proposal
    lane: int = 0


@dataclass(frozen=True)
class Likelihood:
    """The log-probability that the target would have written this very step (NaN where it can't be told)."""

    step: Proposal
    lane: int = 0


@dataclass(frozen=True)
class Keep:
    """Make a step part of the answer; `others` are candidates in whose place it stands."""

    step: Proposal
    reward: float | None = None
    rejected: Rejected | None = None
    audited: float | None = None
    others: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Propose:
    """Let the draft propose at most `n` tokens behind a step that the target has begun.

    The last is the first one that it drew with a probability below `p_min`.
    """

    begun: Proposal
    n: int
    p_min: float = 0.0
    lane: int = 0


@dataclass(frozen=True)
class Check:
    """Let the target go on with a step it has begun, over what the draft proposes."""

    begun: Proposal
    guesses: tuple[Guess, ...]
    watch: bool = False
    lane: int = 0


Request = Write | Judge | Grade | Likelihood | Keep | Propose | Check
Policy = Generator["Request | Sequence[Request]", Any, "EndedBy"]
Kept = Generator[
    "Request | Sequence[Request]", Any, "EndedBy | None"
]  # the part of a policy that keeps a step


def known(reward: float) -> float | None:
    """A reward as records have it: null where the PRM gave none."""
    return None if math.isnan(reward) else reward


def rejection(draft: Proposal, reward: float) -> Rejected:
    """A draft step that the target rewrites, as records have it."""
    return Rejected(draft.text, known(reward), len(draft.ids))


def candidate(step: Proposal, reward: float) -> Candidate:
    """A step that was not taken, as records have it."""
    return Candidate(step.text, step.author, known(reward), len(step.ids))


def gate(accepts: Accepts, draft: Proposal, reward: float, others: tuple[Candidate, ...] = ()) -> Kept:
    """Keep a draft step, or let the target rewrite it, unscored; `others` are drafts that it was picked from."""
    if accepts(reward):
        ended: EndedBy | None = yield Keep(draft, reward, others=others)
    else:
        step: Proposal = yield Write("target")
        ended = yield Keep(step, rejected=rejection(draft, reward), others=others)
    return ended


def rsd(accepts: Accepts, ask: Callable[[Proposal], Request] = Judge) -> Policy:
    """Reward-guided speculative decoding (paper, Algorithm 1): a rejected step is rewritten, unscored."""
    while True:
        draft: Proposal = yield Write("draft")
        reward: float = yield ask(draft)
        if ended := (yield from gate(accepts, draft, reward)):
            return ended


def audit() -> Policy:
    """The draft's answer with every reward; at some steps the target's step earns one too, and is dropped."""
    due = 0.5  # so that the second step is the first to be audited
    while True:
        draft: Proposal = yield Write("draft")
        reward: float = yield Judge(draft)
        due, earned, others = due + AUDITED, None, tuple[Candidate, ...]()
        if due >= 1:
            due -= 1
            step: Proposal = yield Write("target", watch=True, beside=draft)
            told: float = yield Judge(step, beside=draft)
            earned, others = known(told), (candidate(step, told),)
        ended: EndedBy | None = yield Keep(draft, known(reward), audited=earned, others=others)
        if ended:
            return ended


def alone(author: Author) -> Policy:
    """One model writes every step; nobody judges."""
    while True:
        step: Proposal = yield Write(author)
        ended: EndedBy | None = yield Keep(step)
        if ended:
            return ended


def judged(author: Author) -> Policy:
    """One model writes every step and the PRM scores them all: what best-of-n chooses from."""
    while True:
        step: Proposal = yield Write(author, watch=True)
        reward: float = yield Judge(step)
        ended: EndedBy | None = yield Keep(step, known(reward))
        if ended:
            return ended

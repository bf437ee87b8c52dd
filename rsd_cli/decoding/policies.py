"""Who writes which step: policies as generators that read like the paper's algorithms. No I/O, no llama.cpp.

A policy yields requests and is sent the answers: `Write` gives a `Proposal`, `Judge` a reward, `Keep` the
reason why the answer is over, or None while it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rsd_cli.records import Rejected

if TYPE_CHECKING:
    from rsd_cli.engine.speculation import Guess
    from rsd_cli.records import Author, EndedBy, Role

AUDITED = 0.25  # share of an audited answer's steps that the target writes as well
Accepts = Callable[[float], bool]


@dataclass(frozen=True)
class Proposal:
    """A step as its author wrote it. `ids` are tokens of the author's vocabulary, `logprob` their total.

    `drafted` counts those that the target accepted from the draft, one by one; None where none were proposed.
    """

    author: Author
    text: str
    ids: tuple[int, ...]
    ended: Literal["separator", "eog", "max_tokens", "context"]
    logprob: float
    ms: float
    drafted: int | None = None


@dataclass(frozen=True)
class Write:
    """Let a role write the next step of the answer so far."""

    author: Author


@dataclass(frozen=True)
class Judge:
    """Let the PRM score a proposed step."""

    step: Proposal


@dataclass(frozen=True)
class Keep:
    """Make a step part of the answer."""

    step: Proposal
    reward: float | None = None
    rejected: Rejected | None = None
    audited: float | None = None


@dataclass(frozen=True)
class Propose:
    """Let the draft propose at most `n` tokens behind a step that the target has begun."""

    begun: Proposal
    n: int


@dataclass(frozen=True)
class Check:
    """Let the target go on with a step it has begun, over what the draft proposes."""

    begun: Proposal
    guesses: tuple[Guess, ...]


Request = Write | Judge | Keep | Propose | Check
Policy = Generator[Request, Any, "EndedBy"]


def threshold(delta: float) -> Accepts:
    """Binary step weighting (paper, Table 1): accept if the reward is at least delta. NaN is below."""
    return lambda reward: reward >= delta


def known(reward: float) -> float | None:
    """A reward as records have it: null where the PRM gave none."""
    return None if math.isnan(reward) else reward


def rsd(accepts: Accepts) -> Policy:
    """Reward-guided speculative decoding (paper, Algorithm 1): a rejected step is rewritten, unscored."""
    while True:
        draft: Proposal = yield Write("draft")
        reward: float = yield Judge(draft)
        if accepts(reward):
            ended: EndedBy | None = yield Keep(draft, reward)
        else:
            step: Proposal = yield Write("target")
            ended = yield Keep(step, rejected=Rejected(draft.text, known(reward), len(draft.ids)))
        if ended:
            return ended


def audit() -> Policy:
    """The draft's answer with every reward; at some steps the target's step earns one too, and is dropped."""
    due = 0.5  # so that the second step is the first to be audited
    while True:
        draft: Proposal = yield Write("draft")
        reward: float = yield Judge(draft)
        due, earned = due + AUDITED, None
        if due >= 1:
            due -= 1
            step: Proposal = yield Write("target")
            earned = known((yield Judge(step)))
        ended: EndedBy | None = yield Keep(draft, known(reward), audited=earned)
        if ended:
            return ended


def alone(author: Author) -> Policy:
    """One model writes every step; nobody judges."""
    while True:
        step: Proposal = yield Write(author)
        ended: EndedBy | None = yield Keep(step)
        if ended:
            return ended


def speculative() -> Policy:
    """The target alone, over tokens that the draft proposes: speculative decoding (arXiv 2211.17192, 2302.01318)."""
    from rsd_cli.decoding.speculative import speculating  # which is made of this module's requests

    return speculating(alone("target"))


@dataclass(frozen=True)
class Strategy:
    """A named policy and the roles that it needs."""

    roles: tuple[Role, ...]
    start: Callable[[Accepts], Policy]


STRATEGIES: dict[str, Strategy] = {
    "rsd": Strategy(("draft", "prm", "target"), rsd),
    "target": Strategy(("target",), lambda _accepts: alone("target")),
    "audit": Strategy(("draft", "prm", "target"), lambda _accepts: audit()),
    "draft": Strategy(("draft",), lambda _accepts: alone("draft")),
    "speculative": Strategy(("draft", "target"), lambda _accepts: speculative()),
}

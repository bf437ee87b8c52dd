"""Steps of the target over tokens that the draft proposes, in place of plain ones in any policy. Samples nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.decoding.policies import Check, Keep, Proposal, Propose, Write
from rsd_cli.engine.speculation import Guess
from rsd_cli.records import Guesses

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rsd_cli.decoding.policies import Policy, Request
    from rsd_cli.engine.jobs import Checked, Proposed
    from rsd_cli.records import Author, EndedBy

NOTHING = Proposal(
    "target", "", (), "max_tokens", 0.0, 0.0, guesses=Guesses()
)  # of a step that is to be written


@dataclass
class Stride:
    """How many tokens are proposed next: two more where all were accepted, one less where one was refused.

    A balance where a third of the proposals is accepted as a whole; proposals cost a decode of the draft each, and a
    row each in the target's. So they end behind a token that the draft itself gave less than `p_min` (as llama.cpp's
    `--draft-p-min`, which leaves that token out): what follows a refused token is decoded in vain.
    """

    n: int = 4
    least: int = 1
    most: int = 16
    p_min: float = 0.75

    def learn(self, guesses: int, checked: Checked) -> None:
        """Take into account how many of the guesses were accepted; a step's end refuses none."""
        if checked.accepted < min(guesses, len(checked.tokens)):
            self.n = max(self.least, self.n - 1)
        elif checked.accepted == guesses >= self.n:
            self.n = min(self.most, self.n + 2)


def speculating(policy: Policy, stride: Stride | None = None) -> Policy:
    """The same policy, but the target writes its steps over tokens that the draft proposes.

    Where the draft has written a step in the same place, that is proposed first: it costs the draft nothing more.
    Requests side by side, those for parts of a step and those beside one that stays are what they were.
    """
    stride, answer, there = stride or Stride(), None, NOTHING
    while True:
        try:
            request = policy.send(answer)
        except StopIteration as stop:
            ended: EndedBy = stop.value
            return ended
        if asked := _whole_step(request, "target"):
            answer = yield from _step(stride, there.ids, watch=asked.watch)
        else:
            answer = yield request
        if isinstance(request, Keep):
            there = NOTHING
        elif _whole_step(request, "draft"):
            there = answer


def _whole_step(request: Request | Sequence[Request], author: Author) -> Write | None:
    """The request, if it is for nothing but the next step by this author."""
    if isinstance(request, Write) and replace(request, watch=False) == Write(author):
        return request
    return None


def _step(
    stride: Stride, there: tuple[int, ...], *, watch: bool
) -> Generator[Propose | Check, Any, Proposal]:
    step, tried = NOTHING, Guesses()
    while True:
        guesses = _ahead(there, step.ids, stride.n)
        if not guesses:
            proposed: Proposed = yield Propose(step, stride.n, stride.p_min)
            guesses, step = proposed.guesses, replace(step, ms=step.ms + proposed.ms)
            tried += Guesses(proposed=len(guesses))
        checked: Checked = yield Check(step, guesses, watch)
        stride.learn(len(guesses), checked)
        tried += Guesses(0, checked.accepted, checked.refused, refusals=int(checked.refused > 0))
        step = replace(
            step,
            text=step.text + checked.text,
            ids=step.ids + checked.tokens,
            ended=checked.ended or step.ended,
            logprob=step.logprob + checked.logprob,
            ms=step.ms + checked.ms,
            entropy=checked.drawn[0].entropy if checked.drawn and not step.ids else step.entropy,
            guesses=tried,
        )
        if checked.ended:
            return step


def _ahead(there: tuple[int, ...], begun: tuple[int, ...], n: int) -> tuple[Guess, ...]:
    """The next tokens of a step that is there, if it begins like this one.

    They are fixed before the target draws, so that each is checked as certain: why it was rejected does not matter.
    """
    at = len(begun)
    return tuple(map(Guess, there[at : at + n])) if there[:at] == begun else ()

"""Plays a policy by hand: proposals that say who wrote them, rewards by rule, and what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsd_cli.decoding.policies import Grade, Judge, Keep, Likelihood, Proposal, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.decoding.policies import Policy


def proposal(author, text="1 + 1 = 2.\n\n", ids=(1, 2, 3), ended="separator", logprob=-0.5, entropy=0.5):
    return Proposal(author, text, tuple(ids), ended, logprob, 10.0, entropy)


def rewarded(text):
    """A rule that reads the reward in the step itself: 'draft 0: 0.4'."""
    return float(text.split(":")[1])


@dataclass
class Play:
    """What a policy asked for (a list as one request) and kept, and how it ended."""

    asked: list[Any] = field(default_factory=list)
    kept: list[Keep] = field(default_factory=list)
    ended: str | None = None


def play(policy: Policy, writes: Callable[[Write], Proposal], steps: int = 3, **rules: Any) -> Play:
    """Answer until `steps` are kept; `judges`, `grades` and `tells` answer for steps, by their texts' numbers."""
    made = Play()

    def answer(request: Any) -> Any:
        if isinstance(request, list):
            return [answer(each) for each in request]
        if isinstance(request, Write):
            return writes(request)
        if isinstance(request, Judge):
            return rules.get("judges", lambda step: rewarded(step.text))(request.step)
        if isinstance(request, Grade):
            return rules["grades"](request.step)
        if isinstance(request, Likelihood):
            return rules["tells"](request.step)
        assert isinstance(request, Keep)
        made.kept.append(request)
        return "eog" if len(made.kept) == steps or request.step.ended == "eog" else None

    try:
        request = next(policy)
        while True:
            made.asked.append(request)
            request = policy.send(answer(request))
    except StopIteration as stop:
        made.ended = stop.value
    return made

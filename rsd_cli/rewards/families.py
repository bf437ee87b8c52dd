"""What a PRM family is: how a solution is laid out for it, and what its answer means. No roles, seats or files.

A `Reader` reads the solution with an engine; `Confidence` takes what the draft's sampler saw while it wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.jobs import Observed, Read
    from rsd_cli.engine.llama import Model

Aggregate = Literal["last", "min", "product", "mean"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


@dataclass(frozen=True)
class Solution:
    """A question and the steps so far as their authors wrote them, separators included; the newest is last.

    `earlier` are the questions before it in a conversation, with the answers that they got. No published PRM was
    trained on conversations: their layouts of a problem are put behind each other. `ended`: its author ended the
    answer with the newest step.
    """

    question: str
    steps: tuple[str, ...] = ()
    earlier: tuple[Solution, ...] = ()
    ended: bool = False

    @property
    def turns(self) -> tuple[Solution, ...]:
        """The conversation, this question last."""
        return (*self.earlier, self)

    @property
    def newest(self) -> str:
        """The step that is judged."""
        return self.steps[-1]

    @property
    def before(self) -> Solution:
        """The solution without its newest step."""
        return self.up_to(len(self.steps) - 1)

    def up_to(self, n: int) -> Solution:
        """The solution with its first `n` steps."""
        return self if n == len(self.steps) else replace(self, steps=self.steps[:n], ended=False)

    @property
    def text(self) -> str:
        """All steps together, without white space at the end."""
        return "".join(self.steps).rstrip()

    @property
    def bare(self) -> tuple[str, ...]:
        """The steps without the white space around them."""
        return tuple(step.strip() for step in self.steps)


class Reader(Protocol):
    """A family that reads the solution with an engine.

    The layout of a solution begins with the layout of the same solution without its newest step, so that a step
    costs its own tokens and a rejected one is cut off.
    """

    def context(self, solution: Solution) -> list[int]:
        """Token ids of the question and the steps: what later judgements build on."""
        ...

    def job(self, solution: Solution) -> Read:
        """What to read to judge the newest step."""
        ...

    def reward(self, observed: Observed, solution: Solution) -> float:
        """The newest step's reward in [0, 1]; NaN where the model computed none."""
        ...


class Confidence:
    """The geometric mean of the probabilities with which the draft drew the step's tokens.

    exp(mean log p), p normalised over the sampler's best candidates (`engine.sampling.CANDIDATES`) at
    temperature 1. It costs no pass; ConfSpec (arXiv 2602.18447) and SpecGuard (2604.15244) use its kin.
    """

    def reward(self, logprob: float, tokens: int) -> float:
        """exp(logprob / tokens), from the step's total log-probability and its length."""
        return math.exp(logprob / max(1, tokens))


Family = Confidence | Reader


def aggregate(rewards: Sequence[float], how: Aggregate) -> float:
    """One score of a whole solution from its steps' rewards; NaN of none."""
    if not rewards:
        return math.nan
    by: dict[Aggregate, float] = {
        "last": rewards[-1],
        "min": math.nan if any(map(math.isnan, rewards)) else min(rewards),
        "product": math.prod(rewards),
        "mean": sum(rewards) / len(rewards),
    }
    return by[how]


def beginning(model: Model) -> list[int]:
    """The tokens that the model's vocabulary puts before every text."""
    return [model.bos] if model.adds_bos and model.bos >= 0 else []


def shares(logits: Sequence[float]) -> list[float]:
    """Softmax, which can't overflow."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]

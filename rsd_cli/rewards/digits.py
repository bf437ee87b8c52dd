"""A step's grade by a generator that reads it: one digit, from 0 to 9. It needs no PRM, no head and no training.

Here is what is asked and what the answer means; whose model is asked is decided elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import Read
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.llama import Model

DIGITS = "0123456789"
QUESTION = (
    "Rate the last step of this unfinished solution. 9 means that it is right and brings the solution forward, "
    "0 that it is wrong. Answer with one digit."
)


def digit_tokens(model: Model) -> tuple[int, ...]:
    """The tokens of the ten digits."""
    ids = [model.tokenize(digit) for digit in DIGITS]
    if any(len(each) != 1 for each in ids):
        raise ModelError(
            f"{model.path.name} can't grade steps: its vocabulary has no token for each digit.",
            "Choose another --strategy, or another target.",
        )
    return tuple(each[0] for each in ids)


def grading(context: Sequence[int], newest: int, asked: Sequence[int], model: Model) -> Read:
    """Read a solution, of which the newest step has `newest` tokens, with the question behind it."""
    boundaries = (len(context) - newest, len(context))
    return Read([*context, *asked], digit_tokens(model), boundaries)


def asked_behind(prompt: Sequence[int], conversation: Sequence[int] | None, model: Model) -> list[int]:
    """What stands between an answer in the making and the grade.

    `prompt` ends where the answer begins, and `conversation` is the same with an empty answer and the question
    after it. A chat template that has no such turns, or shows them differently, gets the question within the answer.
    """
    n = len(prompt)
    if conversation and list(conversation[:n]) == list(prompt):
        return list(conversation[n:])
    return model.tokenize(f"\n\n({QUESTION})\n\n")


def grade(observed: Observed) -> float:
    """The mean digit over 9 (SpecReason, arXiv 2504.07891, takes one drawn digit); NaN where there is none."""
    if not all(map(math.isfinite, observed.logits)):
        return math.nan
    return sum(digit * share for digit, share in enumerate(shares(observed.logits))) / 9

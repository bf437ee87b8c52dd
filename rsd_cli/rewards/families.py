"""PRM families that need no extra weights: `judge` and `confidence`. Knows no roles, seats or files.

A `Reader` reads the solution with an engine; `Confidence` takes what the draft's sampler saw while it wrote.
A new family that reads is one more class with the reader's face.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from rsd_cli.engine.jobs import Read
from rsd_cli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatTemplate


class Reader(Protocol):
    """A family that reads the solution with an engine of its own."""

    def prompt(self, question: str) -> list[int]:
        """Token ids of the question as this PRM sees it, before any step."""
        ...

    def job(self, prompt: Sequence[int], steps: Sequence[Sequence[int]]) -> Read:
        """What to read to judge the last of the steps (token ids of this PRM's vocabulary)."""
        ...

    def reward(self, logits: Sequence[float]) -> float:
        """The reward in [0, 1] from the logits that the job asked for."""
        ...


class Confidence:
    """The geometric mean of the probabilities with which the draft drew the step's tokens.

    exp(mean log p), p normalised over the sampler's best candidates (`engine.llama.CANDIDATES`) at
    temperature 1. It costs no pass; ConfSpec (arXiv 2602.18447) and SpecGuard (2604.15244) use its kin.
    """

    def reward(self, logprob: float, tokens: int) -> float:
        """exp(logprob / tokens), from the step's total log-probability and its length."""
        return math.exp(logprob / max(1, tokens))


Family = Confidence | Reader


INSTRUCTION = (
    "You check solutions of maths problems step by step. Answer Yes if the newest step is right, "
    "and No if it has an error in reasoning or arithmetic."
)
QUESTION = "\n\nIs the newest step of this solution correct? Answer Yes or No."


class Judge:
    """Any instruct model asked whether the newest step is right: P(Yes) / (P(Yes) + P(No)).

    The solution grows inside one user turn; the question behind it is cut off again by the next job, so a
    step costs its own tokens plus the question's.
    """

    def __init__(self, model: Model, template: ChatTemplate) -> None:
        self._model = model
        self._frame = self._make_frame(template)
        self._verdicts = (model.tokenize("Yes")[0], model.tokenize("No")[0])
        if self._verdicts[0] == self._verdicts[1]:
            raise ModelError(
                f"{model.path.name} can't be a judge: its vocabulary does not tell Yes from No.",
                "Choose another model with --prm.",
            )

    @staticmethod
    def _make_frame(template: ChatTemplate) -> list[list[int]]:
        """What stands around the instruction and the solution; templates without a system role take one turn."""
        try:
            return template.scaffold(("system", "user"))
        except ModelError:
            return template.scaffold(("user",))

    def prompt(self, question: str) -> list[int]:
        """The turns up to where the first step goes."""
        problem = f"Problem:\n{question}\n\nSolution:\n"
        if len(self._frame) == len(("before", "after")):
            return self._frame[0] + self._model.tokenize(f"{INSTRUCTION}\n\n{problem}")
        before, between, _ = self._frame
        return before + self._model.tokenize(INSTRUCTION) + between + self._model.tokenize(problem)

    def job(self, prompt: Sequence[int], steps: Sequence[Sequence[int]]) -> Read:
        """The solution so far with the question behind it."""
        solution = [*prompt, *(token for step in steps for token in step)]
        newest = steps[-1] if steps else ()
        context = solution + self._model.tokenize(QUESTION) + self._frame[-1]
        return Read(context, self._verdicts, (len(solution) - len(newest), len(solution)))

    def reward(self, logits: Sequence[float]) -> float:
        """Softmax over the two verdicts."""
        yes, no = logits
        return 0.5 * (1.0 + math.tanh((yes - no) / 2))  # the logistic function, which can't overflow

"""`judge`: any instruct model, asked whether the newest step is right. It needs no training and no head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import Read
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import shares

if TYPE_CHECKING:
    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatTemplate
    from rsd_cli.rewards.families import Solution

INSTRUCTION = (
    "You check solutions of maths problems step by step. Answer Yes if the newest step is right, "
    "and No if it has an error in reasoning or arithmetic."
)
QUESTION = "\n\nIs the newest step of this solution correct? Answer Yes or No."


class Judge:
    """P(Yes) / (P(Yes) + P(No)) of the answer's first token.

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

    def context(self, solution: Solution) -> list[int]:
        """The turns up to the end of the newest step."""
        ids = self._start()
        for turn in solution.turns:
            for text in (f"Problem:\n{turn.question}\n\nSolution:\n", *turn.steps):
                ids += self._model.tokenize(text)
            ids += self._model.tokenize("\n\n") if turn is not solution else []
        return ids

    def _start(self) -> list[int]:
        """What stands before the first problem."""
        if len(self._frame) == len(("before", "after")):
            return self._frame[0] + self._model.tokenize(f"{INSTRUCTION}\n\n")
        before, between, _ = self._frame
        return before + self._model.tokenize(INSTRUCTION) + between

    def job(self, solution: Solution) -> Read:
        """The solution so far with the question behind it."""
        steps = self.context(solution)
        newest = self._model.tokenize(solution.newest) if solution.steps else []
        asked = [*steps, *self._model.tokenize(QUESTION), *self._frame[-1]]
        return Read(asked, self._verdicts, (len(steps) - len(newest), len(steps)))

    def reward(self, observed: Observed, solution: Solution) -> float:  # noqa: ARG002 - the families' common face
        """Softmax over the two verdicts."""
        return shares(observed.logits)[0]

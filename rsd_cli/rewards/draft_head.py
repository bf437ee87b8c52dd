"""`draft-head`: a head on the generator's own hidden states. It has the generator's layout and no pass of its own.

The state is read in the decode that begins the next step (`engine.jobs.Read.ahead`); text from elsewhere is
read step by step like by any other PRM.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rsd_cli.engine.jobs import Read
from rsd_cli.engine.templates import Message
from rsd_cli.errors import ModelError
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.heads import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rsd_cli.engine.jobs import Observed, Write
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatTemplate
    from rsd_cli.rewards.families import Solution
    from rsd_cli.rewards.heads import Head


def head_inputs(
    names: Sequence[str], seen: Mapping[str, NDArray[np.floating]], solution: Solution
) -> NDArray[np.float32]:
    """The inputs in the order of their names: what decoding gave (`seen`), else features of the text."""
    parts = [seen[name] if name in seen else np.array([FEATURES[name](solution)]) for name in names]
    return np.concatenate(parts).astype(np.float32)


class DraftHead:
    """P(the solution can still succeed) from the state of a step's last token: sigmoid(head(h, features)).

    The last token of a step that ended the answer is the one that ends a turn, whoever wrote the step.

    A linear probe on the generator's last layer (arXiv 2504.05419, 2505.12225), with the step's position and
    the truth of its equations beside the state. Trained by `rsd prm train`; what it was trained on stands in
    the head and its model card.
    """

    def __init__(self, model: Model, template: ChatTemplate, head: Head, system: str) -> None:
        head.check_fits(model.n_embd, model.n_vocab, model.path.name)
        self._model, self._template, self._head, self._system = model, template, head, system

    def context(self, solution: Solution) -> list[int]:
        """The conversation as the generator sees it."""
        messages = [Message("system", self._system)] if self._system else []
        for turn in solution.earlier:
            messages += [Message("user", turn.question), Message("assistant", turn.text, self._written(turn))]
        written = self._written(solution)
        return [
            *self._template.encode([*messages, Message("user", solution.question)]),
            *(self.closed(written) if solution.ended else written),
        ]

    def closed(self, step: Sequence[int]) -> tuple[int, ...]:
        """Tokens of a step that ended the answer, with the one that says so."""
        is_there = step and self._model.ends_generation(step[-1])
        return (*step,) if is_there else (*step, self._end)

    @cached_property
    def _end(self) -> int:
        """The token with which the chat template ends a turn, else that which ends a text."""
        try:
            behind = self._template.scaffold(("user", "assistant"))[-1]
        except ModelError:
            behind = []
        return next((token for token in behind if self._model.ends_generation(token)), self._model.eos)

    def _written(self, turn: Solution) -> tuple[int, ...]:
        return tuple(token for step in turn.steps for token in self._model.tokenize(step))

    def job(self, solution: Solution) -> Read:
        """The state of the newest step's last token."""
        context = self.context(solution)
        before = len(self.context(solution.before)) if solution.steps else 0
        return Read(context, (), (before, len(context)), hidden=True)

    @staticmethod
    def own_job(context: Sequence[int], ahead: Write | None) -> Read:
        """The same where the generator itself has just written these tokens and may go on with `ahead`."""
        return Read(context, (), (len(context) - 1, len(context)), hidden=True, ahead=ahead)

    def reward(self, observed: Observed, solution: Solution) -> float:
        """The calibrated reward of the newest step; NaN where the model computed none."""
        if observed.hidden is None:
            raise TypeError("a draft-head reads states")
        return self._head.reward(head_inputs(self._head.inputs, {HIDDEN: observed.hidden}, solution))

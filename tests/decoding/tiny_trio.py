"""A trio of tiny models for tests, with a reward that the test decides by the text of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_cli.engine.context import ContextOptions
from rsd_cli.engine.jobs import Read
from rsd_cli.engine.seats import Engine
from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.rewards.families import Confidence
from rsd_cli.rewards.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.llama import Model
    from rsd_cli.records import Author, Role
    from rsd_cli.rewards.families import Family, Solution

QUESTION = " Is the step so?"


class Verdict:
    """Reads as a judge does, and rewards a step by a rule; the rule's verdict travels as a token to read."""

    def __init__(self, model: Model, template: ChatTemplate, rule: Callable[[str], bool]) -> None:
        self._judge = Judge(model, template)
        self._model, self._rule = model, rule
        self._question = model.tokenize(QUESTION)

    def context(self, solution: Solution) -> list[int]:
        return self._judge.context(solution)

    def job(self, solution: Solution) -> Read:
        context = self.context(solution)
        newest = len(self._model.tokenize(solution.newest))
        asked = (0,) if self._rule(solution.newest) else (0, 0)
        return Read([*context, *self._question], asked, (len(context) - newest, len(context)))

    def reward(self, observed: Observed, _solution: Solution) -> float:
        return 0.9 if len(observed.logits) == 1 else 0.2


def even(step: str) -> bool:
    """A rule that accepts about half of all steps, whatever they say."""
    return sum(step.encode()) % 2 == 0


class TinyTrio:
    """Engines on given models; `seats` of them each."""

    def __init__(
        self,
        models: dict[Role, Model],
        seats: int = 1,
        n_ctx: int = 1024,
        rule: Callable[[str], bool] | None = even,
        aborted: Callable[[], bool] | None = None,
        family: Family | None = None,
        reproducible: bool = False,
        streams: int = 0,
        kv_type: str = "f16",
    ) -> None:
        options = ContextOptions(
            n_ctx,
            seats,
            256,
            threads=1,
            kv_type=kv_type,
            forgets=reproducible,
            flash_attention=False if reproducible else None,
            n_streams=streams,
        )
        self._engines = {role: Engine(model, options, aborted) for role, model in models.items()}
        self._renderer = Renderer()
        self._templates = {role: ChatTemplate(model, self._renderer) for role, model in models.items()}
        self._family: Family | None = family
        if "prm" in models and rule:
            self._family = Verdict(models["prm"], self._templates["prm"], rule)

    def engine(self, role: Role) -> Engine:
        return self._engines[role]

    def loaded(self) -> dict[Role, Engine]:
        return self._engines

    @property
    def family(self) -> Family | None:
        return self._family

    @property
    def watches_draft(self) -> bool:
        return isinstance(self._family, Confidence)

    @property
    def critic(self) -> Role:
        return "prm" if "prm" in self._engines else "draft"

    def prompt(self, role: Author, system: str, question: str, before: Sequence[Message] = ()) -> list[int]:
        first = [Message("system", system)] if system else []
        return self._templates[role].encode([*first, *before, Message("user", question)])

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._renderer.close()

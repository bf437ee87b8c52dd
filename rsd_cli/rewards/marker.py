"""`marker` and `genprm-direct`: PRMs that answer with their vocabulary, at one place behind each step.

Nothing is lost in a GGUF of such a model. The layouts are those of the published models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import Read
from rsd_cli.engine.templates import Message
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import beginning, shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatRole, ChatTemplate
    from rsd_cli.rewards.families import Solution

TEACHER = (
    "You are a math teacher. Your task is to review and critique the paragraphs in solution directly. Output your "
    "judgement in the format of `\\boxed{Yes}` if the paragraph is correct, or `\\boxed{No}` if the paragraph is "
    "incorrect."
)
PARAGRAPH: tuple[ChatRole, ...] = ("user", "assistant")
VERDICT = "<output>\n**Judgement**: $\\boxed{"


@dataclass(frozen=True)
class Layout:
    """Where the PRM reads (`tokens`), and its words for a good and a bad step."""

    tokens: Callable[[Model, ChatTemplate, Solution], list[int]]
    signs: tuple[str, ...]
    marker: str = ""


def math_shepherd(model: Model, _template: ChatTemplate, solution: Solution) -> list[int]:
    """math-shepherd-mistral-7b-prm (model card): "Step i: ..." and the marker behind each, a line each.

    No token of its vocabulary reaches over a space or a line's end, so the pieces have the ids of the whole text.
    """
    marker = single_token(model, " ки")
    ids = beginning(model)
    for turn in solution.turns:
        ids += model.tokenize(turn.question.rstrip(), starts=True)
        for number, step in enumerate(turn.bare, start=1):
            text = step if step.startswith(f"Step {number}:") else f"Step {number}: {step}"
            ids += [*model.tokenize((" " if number == 1 else "\n") + text), marker]
    return ids


def rlhflow(_model: Model, template: ChatTemplate, solution: Solution) -> list[int]:
    """RLHFlow's Llama3.1-8B PRMs (their code): a user turn a step, answered "+"; read behind its header.

    Earlier answers stay "+", also behind a bad step.
    """
    messages: list[Message] = []
    for turn in solution.turns:
        for number, step in enumerate(turn.bare):
            messages.append(Message("user", step if number else f"{turn.question} {step}"))
            messages.append(Message("assistant", "+"))
    if not messages:
        return template.scaffold(("user",))[0] + _model.tokenize(solution.question)
    return template.encode(messages[:-1])


def versaprm(model: Model, _template: ChatTemplate, solution: Solution) -> list[int]:
    """VersaPRM (arXiv 2502.06737): question, empty line, and four newlines as one token behind each step."""
    marker = single_token(model, " \n\n\n\n")
    ids = beginning(model)
    for turn in solution.turns:
        ids += model.tokenize(turn.question.strip() + " \n\n")
        for step in turn.bare:
            ids += [*model.tokenize(step), marker]
    return ids


def math_psa(model: Model, _template: ChatTemplate, solution: Solution) -> list[int]:
    """Math-psa (OpenR, arXiv 2410.09671): a space before each step, five newlines as one token behind it."""
    marker = single_token(model, " \n\n\n\n\n")
    ids = beginning(model)
    for turn in solution.turns:
        ids += model.tokenize(turn.question.rstrip())
        for step in turn.bare:
            ids += [*model.tokenize(" " + step), marker]
    return ids


def genprm(model: Model, template: ChatTemplate, solution: Solution) -> list[int]:
    """GenPRM without its analysis (arXiv 2504.00891): a user turn a paragraph, answered by a forced verdict.

    System prompt and first turn (question, newline, paragraph) as in its authors' prm_evaluate.py without --analyze
    and --verify; their README, which has the analysis, begins with "Question: ". Unlike theirs, earlier paragraphs
    are always answered Yes, not as the model did. They publish no figures for this direct mode.
    """
    paragraphs = [
        step if number else f"{turn.question}\n{step}"
        for turn in solution.turns
        for number, step in enumerate(turn.bare)
    ]
    before, asked, *around = template.scaffold(("system", *PARAGRAPH * max(1, len(paragraphs)))[:-1])
    ids = [*before, *model.tokenize(TEACHER), *asked]
    if not paragraphs:
        return [*ids, *model.tokenize(f"{solution.question}\n")]
    verdict, answer = model.tokenize(VERDICT), model.tokenize("Yes}$\n</output>\n")
    for number, paragraph in enumerate(paragraphs):
        if number:
            ids += [*answer, *around[2 * number - 1]]
        ids += [*model.tokenize(paragraph), *around[2 * number], *verdict]
    return ids


LAYOUTS: dict[str, Layout] = {
    "math-shepherd": Layout(math_shepherd, (" +", " -"), " ки"),
    "rlhflow": Layout(rlhflow, ("+", "-")),
    "versaprm": Layout(versaprm, ("+", "-"), " \n\n\n\n"),
    "math-psa": Layout(math_psa, (" +", " -"), " \n\n\n\n\n"),
    "genprm-direct": Layout(genprm, ("Yes", "No")),
}


def single_token(model: Model, text: str) -> int:
    """The one token of a marker; a vocabulary that cuts it up has another PRM's markers."""
    ids = model.tokenize(text)
    if len(ids) != 1:
        raise ModelError(
            f"{model.path.name} has no single token for {text!r}, which this PRM reads at ({len(ids)} tokens).",
            "Choose the layout that the model was trained with.",
        )
    return ids[0]


class Marker:
    """Softmax over the logits of the signs, the first of which means a good step."""

    def __init__(self, model: Model, template: ChatTemplate, layout: str) -> None:
        self._model, self._template, self._layout = model, template, LAYOUTS[layout]
        if self._layout.marker:
            single_token(model, self._layout.marker)
        self._signs = tuple(model.tokenize(sign)[0] for sign in self._layout.signs)
        if len(set(self._signs)) < len(self._signs):
            raise ModelError(f"{model.path.name} does not tell {' from '.join(self._layout.signs)}.")

    def context(self, solution: Solution) -> list[int]:
        """The published layout up to the token to read at."""
        return self._layout.tokens(self._model, self._template, solution)

    def job(self, solution: Solution) -> Read:
        """The signs' logits behind the last token."""
        context = self.context(solution)
        before = len(self.context(solution.before)) if solution.steps else 0
        return Read(context, self._signs, (before, len(context)))

    def reward(self, observed: Observed, solution: Solution) -> float:  # noqa: ARG002 - the families' common face
        """The first sign's share."""
        return shares(observed.logits)[0]

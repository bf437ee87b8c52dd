"""`value-head`: a head over the hidden state behind the final norm, at the token that ends a step.

The layouts are those of the published models; which head goes with which is written in models.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_cli.engine.jobs import Read
from rsd_cli.engine.templates import Message
from rsd_cli.errors import ModelError
from rsd_cli.rewards.families import Solution, beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.llama import Model
    from rsd_cli.engine.templates import ChatTemplate
    from rsd_cli.rewards.heads import Head

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
EXTRA_0 = (
    151651  # the text <extra_0> is five tokens of the stock vocabulary, whose name for the id is another
)
EXTRA_0_NAMES = ("<extra_0>", "<|quad_end|>")
QWEN_START = "<|endoftext|>"  # what Skywork's tokenizer begins with; the stock one begins with nothing


def skywork(model: Model, _template: ChatTemplate, solution: Solution, separator: str) -> list[int]:
    """Skywork-o1-Open-PRM (its repository's io_utils.py): bos, problem, newline; each piece, then one separator id.

    The card splits at a newline, the RSD paper's code at an empty line. Line feeds at the end are left out, since
    each would be one more scored piece; other white space stays. Score: sigmoid(w h + b).
    """
    end = single_separator(model, separator)
    start = [model.bos] if model.bos >= 0 else model.tokenize(QWEN_START, special=True)
    ids = [*start]
    for turn in solution.turns:
        ids += model.tokenize(turn.question + "\n")
        text = "".join(turn.steps).rstrip("\n")
        for piece in text.split(separator) if turn.steps else ():
            ids += [*model.tokenize(piece), end]
    return ids


def qwen_prm(model: Model, template: ChatTemplate, solution: Solution, _separator: str) -> list[int]:
    """Qwen2.5-Math-PRM and PRM800K (model card): chat turns, the id of <extra_0> behind each step.

    Score: softmax(W2 relu(W1 h + b1) + b2), class 1.
    """
    if model.n_vocab <= EXTRA_0 or model.special_text(EXTRA_0) not in EXTRA_0_NAMES:
        raise ModelError(
            f"{model.path.name} has no token <extra_0> ({EXTRA_0}), which Qwen's PRMs read at.",
            "Use a GGUF with Qwen2.5's vocabulary.",
        )

    def marked(turn: Solution) -> tuple[int, ...]:
        return tuple(token for step in turn.bare for token in (*model.tokenize(step), EXTRA_0))

    messages = [Message("system", QWEN_SYSTEM)]
    for turn in solution.earlier:
        messages += [Message("user", turn.question), Message("assistant", turn.text, marked(turn))]
    return [*template.encode([*messages, Message("user", solution.question)]), *marked(solution)]


def trl(model: Model, _template: ChatTemplate, solution: Solution, separator: str) -> list[int]:
    """TRL's stepwise reward models (PRMTrainer.tokenize_row): bos if any, prompt, each step and the separator's ids.

    Also PURE (arXiv 2504.15275), whose p1 - p0 orders as p1 does. Score: softmax, class 1.
    """
    end = separator_ids(model, separator)
    ids = beginning(model)
    for turn in solution.turns:
        ids += model.tokenize(turn.question)
        for step in turn.bare:
            ids += [*model.tokenize(step), *end]
    return ids


def reasoneval(model: Model, _template: ChatTemplate, solution: Solution, _separator: str) -> list[int]:
    """ReasonEval (its repository's codes/examples.py): read at a step's own last token, separators are dropped.

    Each piece between separators gets the space that its SentencePiece tokenizer puts before a text. Score:
    softmax over negative, neutral, positive; validity is neutral + positive.
    """
    ids = beginning(model)
    for turn in solution.turns:
        head = f"Question:\n{turn.question}\nAnswer:\nLet's think step by step.\n"
        for text in (head, *turn.bare):
            ids += model.tokenize(text, starts=True)
    return ids


LAYOUTS: dict[str, Callable[[Model, ChatTemplate, Solution, str], list[int]]] = {
    "skywork": skywork,
    "qwen-prm": qwen_prm,
    "trl": trl,
    "reasoneval": reasoneval,
}


def separator_ids(model: Model, separator: str) -> list[int]:
    """The tokens of the separator, the last of which is where the authors read."""
    ids = model.tokenize(separator)
    if not ids:
        raise ModelError(
            f"{model.path.name} has no token for the separator {separator!r}.",
            "Name one in models.yaml (separator: TEXT).",
        )
    return ids


def single_separator(model: Model, separator: str) -> int:
    """The one token that a separator is; the authors put its id behind each piece."""
    ids = separator_ids(model, separator)
    if len(ids) != 1:
        raise ModelError(
            f"{model.path.name} has {len(ids)} tokens for the separator {separator!r}, this PRM reads at one.",
            "Name another in models.yaml (separator: TEXT), or use the model that the head was made for.",
        )
    return ids[0]


class ValueHead:
    """A linear or MLP head over the separator's hidden state: sigmoid, or softmax and the share of some classes."""

    def __init__(self, model: Model, template: ChatTemplate, head: Head, layout: str, separator: str) -> None:
        head.check_fits(model.n_embd, model.n_vocab, model.path.name)
        self._model, self._template, self._head = model, template, head
        self._layout, self._separator = LAYOUTS[layout], separator or head.separator
        self.context(Solution(""))  # refuses a model without the layout's tokens before its first step

    def context(self, solution: Solution) -> list[int]:
        """The published layout up to the token to read at."""
        return self._layout(self._model, self._template, solution, self._separator)

    def job(self, solution: Solution) -> Read:
        """The hidden state of the last token."""
        context = self.context(solution)
        before = len(self.context(solution.before)) if solution.steps else 0
        return Read(context, (), (before, len(context)), hidden=True)

    def reward(self, observed: Observed, solution: Solution) -> float:  # noqa: ARG002 - the families' common face
        """The head's reward."""
        if observed.hidden is None:
            raise TypeError("a value-head reads states")
        return self._head.reward(observed.hidden)

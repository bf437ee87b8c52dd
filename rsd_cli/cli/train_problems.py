"""The problems of `rsd prm train` as the generator is asked them, and whether a head can be fitted on them.

Says what is left out; writes no files.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import typer

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.cli.questions import GoldQuestion
    from rsd_cli.engine.llama import Model
    from rsd_cli.rewards.rollouts import Plan, Question, Rollout

FEWEST = 10  # problems


def check_problems(ids: Sequence[str]) -> None:
    """Refuse before the work what is too few for cross-validation."""
    from rsd_cli.rewards.starter import is_held_out
    from rsd_cli.rewards.training import fold_of

    folds = [fold_of(ident) for ident in ids if not is_held_out(ident)]
    if len(ids) < FEWEST or len(set(folds)) < 2:
        raise UsageError(
            f"Too few problems: {len(ids)}, of which {len(folds)} are to train on, in {len(set(folds))} parts for "
            "cross-validation.",
            f"Give at least {FEWEST} that the model has room for; a good head wants a thousand.",
        )


def check_outcomes(rollouts: Sequence[Rollout]) -> None:
    """Refuse solutions that came out alike: nothing tells good steps from bad ones."""
    from rsd_cli.rewards.starter import is_held_out

    rights = [rollout.right for rollout in rollouts if not is_held_out(rollout.id)]
    if not 0 < sum(rights) < len(rights):
        raise UsageError(
            f"{sum(rights)} of {len(rights)} solutions to train on are right; a head needs right and wrong ones.",
            f"Give more --rows or --samples, or {'harder' if any(rights) else 'easier'} problems in another --work.",
        )


def cells(question: Question, plan: Plan) -> int:
    """The context that a rollout needs: the prompt, the longest answer, and a token that is drawn ahead."""
    return len(question.prompt) + plan.max_tokens + 1


def fitting_questions(model: Model, tasks: list[GoldQuestion], plan: Plan) -> list[Question]:
    """The tasks with their prompts, without those that leave no room for an answer; says how many these are."""
    questions = _questions(model, tasks)
    fitting = [question for question in questions if cells(question, plan) <= model.n_ctx_train]
    left_out = f"too long for {model.path.name}, which was trained for {model.n_ctx_train:,} tokens"
    if not fitting:
        raise UsageError(
            f"With answers of {plan.max_tokens:,} tokens every problem is {left_out}.",
            "Give a smaller --max-tokens, or another --model.",
        )
    if len(fitting) < len(questions):
        typer.echo(
            f"{len(questions) - len(fitting)} of {len(questions)} problems are left out: with an answer of "
            f"{plan.max_tokens:,} tokens they are {left_out}.",
            err=True,
        )
    check_problems([question.id for question in fitting])
    return fitting


def _questions(model: Model, tasks: list[GoldQuestion]) -> list[Question]:
    from rsd_cli.decoding.prompts import MATHS
    from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
    from rsd_cli.rewards.rollouts import Question

    with closing(Renderer()) as renderer:
        template = ChatTemplate(model, renderer)
        return [
            Question(
                task.id,
                task.question,
                task.answer,
                tuple(template.encode([Message("system", MATHS), Message("user", task.question)])),
            )
            for task in tasks
        ]

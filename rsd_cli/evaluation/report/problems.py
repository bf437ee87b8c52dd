"""What the report's browser of single problems is fed with, as small JSON. Escapes nothing but what ends a script.

Texts travel as data and are shown as text; `report.js` never makes HTML of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rsd_cli.evaluation.samples import OUTCOMES, question_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsd_cli.evaluation.accounts import StrategyRun
    from rsd_cli.evaluation.runs import Evaluation, TaskRun
    from rsd_cli.evaluation.samples import Branch, Sample
    from rsd_cli.records import Step

LARGEST = (
    18_000_000  # characters of all solutions, beyond which answers that do not count go without their text
)


def embedded(name: str, data: object) -> str:
    """A script element that holds data; no text within can end it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    harmless = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{harmless}</script>\n'


def scripts(evaluation: Evaluation) -> str:
    """An index of all problems, and for each strategy its solutions, which are parsed when they are looked at."""
    whole = _solutions(evaluation, whole=True)
    if len(whole) > LARGEST:
        whole = _solutions(evaluation, whole=False)
    return (
        embedded("index", {"outcomes": OUTCOMES, "tasks": [_task(run) for run in evaluation.tasks]}) + whole
    )


def _solutions(evaluation: Evaluation, *, whole: bool) -> str:
    return "".join(
        embedded(f"solutions-{i}-{k}", _by_problem(run, whole=whole))
        for i, task in enumerate(evaluation.tasks)
        for k, run in enumerate(task.strategies)
    )


def _task(run: TaskRun) -> dict[str, Any]:
    return {
        "task": run.task,
        "strategies": [each.name for each in run.strategies],
        "problems": _problems(run.strategies),
    }


def _problems(runs: Sequence[StrategyRun]) -> list[list[Any]]:
    """Each problem as [id, question, gold, a grade for each strategy], in the order of the ids.

    A grade is [outcome, extracted], or null where the strategy has no such problem.
    """
    by_run = [{sample.doc_id: sample for sample in run.samples} for run in runs]
    samples = [sample for run in reversed(runs) for sample in run.samples]
    answered_last = sorted(samples, key=lambda sample: bool(sample.branches))  # which know the question
    asked = {sample.doc_id: sample for sample in answered_last}
    return [
        [
            doc_id,
            question_of(asked[doc_id]),
            asked[doc_id].target,
            [_grade(samples.get(doc_id)) for samples in by_run],
        ]
        for doc_id in sorted(asked)
    ]


def _grade(sample: Sample | None) -> list[Any] | None:
    return None if sample is None else [OUTCOMES.index(sample.outcome), sample.extracted]


def _by_problem(run: StrategyRun, *, whole: bool) -> dict[int, Any]:
    return {sample.doc_id: _answers(sample, whole=whole) for sample in run.samples}


def _answers(sample: Sample, *, whole: bool) -> list[dict[str, Any]]:
    counts = sample.chosen
    return [
        _answer(branch, counts=branch is counts, whole=whole or branch is counts)
        for branch in sample.branches
    ]


def _answer(branch: Branch, *, counts: bool, whole: bool) -> dict[str, Any]:
    record = branch.record
    return {
        "outcome": OUTCOMES.index(branch.outcome),
        "extracted": branch.extracted,
        "score": branch.score,
        "counts": counts,
        "ended": record.ended_by,
        "ms": round(sum(spent.prompt_ms + spent.decode_ms for spent in record.timings.roles.values())),
        "flops": record.flops.total,
        "steps": [_step(step) for step in record.steps] if whole else None,
    }


def _step(step: Step) -> list[Any]:
    """[text, author, reward, tokens], and for a rewritten one [text, reward, tokens] of the draft's."""
    shown = [step.text, step.author[0], _rounded(step.reward), step.tokens]
    lost = step.rejected
    return [*shown, [lost.text, _rounded(lost.reward), lost.tokens]] if lost else shown


def _rounded(reward: float | None) -> float | None:
    return None if reward is None else round(reward, 4)

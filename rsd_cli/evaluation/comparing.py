"""Two evaluations side by side: what was set otherwise, how the accuracies differ, which questions flipped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rsd_cli.evaluation.costs import cost_of
from rsd_cli.evaluation.runs import records_of
from rsd_cli.evaluation.samples import question_of
from rsd_cli.evaluation.significance import paired

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rsd_cli.evaluation.accounts import StrategyRun
    from rsd_cli.evaluation.runs import Evaluation, TaskRun
    from rsd_cli.evaluation.samples import Sample
    from rsd_cli.evaluation.significance import Difference

ABSENT = "-"
OF_STRATEGIES = "config.strategies."


@dataclass(frozen=True)
class Setting:
    """A value that differs between two runs; `-` where a run has none."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Flip:
    """A question that one run got right and the other wrong."""

    doc_id: int
    question: str
    target: str
    first: str | None
    second: str | None
    gained: bool


@dataclass(frozen=True)
class Pair:
    """A strategy of each run on the same task, over the questions that both asked.

    `difference` is the second's accuracy less the first's, None if they share no question. `first_n` and
    `second_n` are all questions of a run, `compute` and `seconds` the second's as multiples of the first's over
    those of them that both answered.
    """

    task: str
    first: str
    second: str
    first_n: int
    second_n: int
    difference: Difference | None
    compute: float | None
    seconds: float | None
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class Comparison:
    """All that differs. `only_first` and `only_second` are strategies, with their task, that the other lacks."""

    settings: tuple[Setting, ...]
    pairs: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Strategies of the same name are paired; where a task has one strategy in each run, those two are."""
    pairs: list[Pair] = []
    only_first: list[str] = []
    only_second: list[str] = []
    others = {run.task: run for run in second.tasks}
    for run in first.tasks:
        partners = list(_partners(run, others.get(run.task)))
        pairs += [_pair(run.task, one, other) for one, other in partners]
        only_first += _missing(run, {one.name for one, _ in partners})
        if run.task in others:
            only_second += _missing(others[run.task], {other.name for _, other in partners})
    known = {run.task for run in first.tasks}
    only_second += [name for run in second.tasks if run.task not in known for name in _missing(run, set())]
    return Comparison(_settings(first, second), tuple(pairs), tuple(only_first), tuple(only_second))


def _partners(run: TaskRun, other: TaskRun | None) -> Iterator[tuple[StrategyRun, StrategyRun]]:
    if other is None:
        return
    if len(run.strategies) == len(other.strategies) == 1:
        yield run.strategies[0], other.strategies[0]
        return
    for one in run.strategies:
        same = other.named(one.name)
        if same:
            yield one, same


def _missing(run: TaskRun, paired_names: set[str]) -> list[str]:
    return [f"{run.task} {each.name}" for each in run.strategies if each.name not in paired_names]


def _pair(task: str, first: StrategyRun, second: StrategyRun) -> Pair:
    other = {sample.doc_id: sample for sample in second.samples}
    shared = [
        (sample, other[sample.doc_id])
        for sample in first.samples
        if sample.doc_id in other and sample.doc_hash == other[sample.doc_id].doc_hash
    ]
    answered = [(one, two) for one, two in shared if one.branches and two.branches]
    before = cost_of(records_of(one for one, _ in answered))
    after = cost_of(records_of(two for _, two in answered))
    return Pair(
        task,
        first.name,
        second.name,
        len(first.samples),
        len(second.samples),
        paired([one.right for one, _ in shared], [two.right for _, two in shared]) if shared else None,
        _times(before.total_flops, after.total_flops),
        _times(before.seconds, after.seconds),
        tuple(_flip(one, two) for one, two in shared if one.right != two.right),
    )


def _times(first: float, second: float) -> float | None:
    return second / first if first else None


def _flip(first: Sample, second: Sample) -> Flip:
    question = question_of(first if first.branches else second)
    return Flip(first.doc_id, question, first.target, first.extracted, second.extracted, second.right)


def _settings(first: Evaluation, second: Evaluation) -> tuple[Setting, ...]:
    """Everything of the circumstances but the times and how it was asked for; of strategies what both runs know."""
    before, after = (dict(_flat(asdict(each.circumstances))) for each in (first, second))
    names = [
        name
        for name in {**before, **after}
        if not name.startswith("times.") and name != "command"
        if not name.startswith(OF_STRATEGIES) or (name in before and name in after)
    ]
    return tuple(
        Setting(name, before.get(name, ABSENT), after.get(name, ABSENT))
        for name in names
        if before.get(name) != after.get(name)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value under the path of its keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)

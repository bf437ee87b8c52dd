"""What a strategy achieved and what it cost. From its samples; shows nothing, and what answers cost is costs.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsd_cli.decoding.gating import gated, passed_over, unrewarded
from rsd_cli.evaluation.choosing import Choice, budgets, choices, choose
from rsd_cli.evaluation.costs import Cost, cost_of, unjudged
from rsd_cli.evaluation.samples import OUTCOMES
from rsd_cli.evaluation.significance import paired, standard_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rsd_cli.engine.pace import Pace
    from rsd_cli.evaluation.samples import Outcome, Sample
    from rsd_cli.evaluation.significance import Difference
    from rsd_cli.records import Role


@dataclass(frozen=True)
class Authorship:
    """Who wrote the answers. None where there is nothing to take a share of.

    `acceptance` is the share of the draft's judged steps that passed the criterion; `acceptance_by_tokens` is the
    paper's (accepted / (accepted + discarded) tokens of the draft, candidates that were not taken among the
    discarded). Both are None where no step of the draft is ever rejected. `target_share` is of kept tokens.
    Of all questions, `draft_alone` is the share in whose answer the target wrote nothing, and `draft_alone_right` the
    share where the answer is right as well.
    """

    acceptance: float | None
    acceptance_by_tokens: float | None
    target_share: float | None
    draft_alone: float
    draft_alone_right: float


@dataclass(frozen=True)
class Budget:
    """The same samples as if only the first n of each question had been drawn.

    `answered` of the questions have answers, whose cost `cost` is. `difference` is to the task's first strategy, as
    that of an `Account`.
    """

    choice: Choice
    n: int
    right: int
    of: int
    answered: int
    cost: Cost
    difference: Difference | None = None

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.of

    @property
    def stderr(self) -> float | None:
        """The accuracy's standard error."""
        return standard_error(self.right, self.of)


@dataclass(frozen=True)
class Account:
    """One strategy on one task. `difference` is to the task's first strategy, over the questions of both.

    `answered` of the n questions did not end in an error; `cost` is that of their answers.
    `cut_short` answers did not end by themselves, whether they have a final answer or not (outcome "truncated").
    `unrewarded` steps were rejected because the PRM gave them no reward.
    `wall_seconds` is what the strategy took with all else around its models, if that was measured.
    """

    task: str
    strategy: str
    n: int
    answered: int
    right: int
    difference: Difference | None
    outcomes: dict[Outcome, int]
    cut_short: int
    unrewarded: int
    cost: Cost
    authorship: Authorship
    budgets: tuple[Budget, ...]
    wall_seconds: float | None = None

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.n

    @property
    def stderr(self) -> float | None:
        """The accuracy's standard error."""
        return standard_error(self.right, self.n)


@dataclass(frozen=True)
class StrategyRun:
    """All answers of one strategy to the questions of one task, at least one; `drawn_by` another, if it is named.

    `paces` are those of its models, as far as they are known.
    """

    name: str
    samples: tuple[Sample, ...]
    drawn_by: str | None = None
    paces: dict[Role, Pace] = field(default_factory=dict)

    @property
    def wall_seconds(self) -> float | None:
        """What its questions took, one after the other over; None unless each was timed."""
        seconds = [sample.seconds for sample in self.samples if sample.seconds is not None]
        return sum(seconds) if len(seconds) == len(self.samples) else None


def accounts_of(task: str, runs: Sequence[StrategyRun]) -> tuple[Account, ...]:
    """The accounts of a task's strategies; the first is what the others are compared with."""
    return tuple(_account(task, run, runs[0]) for run in runs)


def budgets_of(samples: Sequence[Sample], first: Sequence[Sample] = ()) -> tuple[Budget, ...]:
    """Accuracy and cost at 1, 2, 4 … n answers a question, for every way to choose that the samples allow."""
    largest = max((len(sample.branches) for sample in samples), default=0)
    return tuple(_budget(samples, how, n, first) for how in choices(samples) for n in budgets(largest))


def authorship(samples: Sequence[Sample]) -> Authorship:
    """Who wrote the answers of a strategy."""
    records = [record for sample in samples for record in sample.records]
    steps = [step for record in records for step in record.steps]
    alone = [sample for sample in samples if _is_drafted(sample)]
    judged = [step for record in records for step in gated(record)]
    accepted = [step.tokens for step in judged if step.passed]
    left = [other.tokens for record in records for other in passed_over(record)]
    return Authorship(
        acceptance=_share(len(accepted), len(judged)),
        acceptance_by_tokens=_share(sum(accepted), sum(step.tokens for step in judged) + sum(left)),
        target_share=_share(
            sum(step.tokens for step in steps if step.author == "target"), sum(step.tokens for step in steps)
        ),
        draft_alone=len(alone) / len(samples),
        draft_alone_right=sum(sample.right for sample in alone) / len(samples),
    )


def _account(task: str, run: StrategyRun, first: StrategyRun) -> Account:
    counted = Counter(sample.outcome for sample in run.samples)
    others = () if run is first else first.samples
    return Account(
        task=task,
        strategy=run.name,
        n=len(run.samples),
        answered=_answered(run.samples),
        right=sum(sample.right for sample in run.samples),
        difference=_difference(others, {sample.doc_id: sample.right for sample in run.samples}),
        outcomes={outcome: counted[outcome] for outcome in OUTCOMES},
        cut_short=sum(sample.is_cut_short for sample in run.samples),
        unrewarded=sum(unrewarded(record) for sample in run.samples for record in sample.records),
        cost=cost_of(record for sample in run.samples for record in sample.records),
        authorship=authorship(run.samples),
        budgets=budgets_of(run.samples, others),
        wall_seconds=run.wall_seconds,
    )


def _budget(samples: Sequence[Sample], how: Choice, n: int, first: Sequence[Sample]) -> Budget:
    chosen = {sample.doc_id: choose(sample.branches[:n], how) for sample in samples}
    grades = {doc_id: branch is not None and branch.right for doc_id, branch in chosen.items()}
    cost = cost_of(record for sample in samples for record in sample.records[:n])
    return Budget(
        how,
        n,
        sum(grades.values()),
        len(samples),
        _answered(samples),
        unjudged(cost) if how == "majority" else cost,
        _difference(first, grades),
    )


def _difference(first: Sequence[Sample], grades: Mapping[int, bool]) -> Difference | None:
    """Paired over the questions that both answered; None if there are none."""
    pairs = [(sample.right, grades[sample.doc_id]) for sample in first if sample.doc_id in grades]
    return paired([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if pairs else None


def _answered(samples: Sequence[Sample]) -> int:
    return sum(bool(sample.branches) for sample in samples)


def _is_drafted(sample: Sample) -> bool:
    steps = [step for record in sample.records for step in record.steps]
    return bool(steps) and all(step.author == "draft" for step in steps)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None

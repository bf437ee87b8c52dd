"""A whole evaluation: its tasks, the strategies on them with all samples, and its circumstances. No files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rsd_cli.evaluation.accounts import StrategyRun, accounts_of
from rsd_cli.evaluation.costs import cost_of, projected
from rsd_cli.evaluation.verdict import make_verdict, spent_tariff
from rsd_cli.evaluation.workload import Workload, alone_of
from rsd_cli.records import ModelId, Role  # noqa: TC001 - read_object looks its fields' types up

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from rsd_cli.evaluation.accounts import Account
    from rsd_cli.evaluation.costs import Cost
    from rsd_cli.evaluation.samples import Sample
    from rsd_cli.evaluation.verdict import Verdict
    from rsd_cli.records import Record

OF_TIME = ("n_seats", "n_streams", "threads")  # settings that may change from run to run in one folder


@dataclass(frozen=True)
class Times:
    """ISO 8601, with the time zone."""

    started: str
    ended: str


@dataclass(frozen=True)
class Circumstances:
    """What figures depend on besides the questions. `rows` has the sizes of whole tasks, where they are known.

    `chat_template_sha` has the sha256 of each loaded model's own chat template; `command` is the last one that gave
    answers.
    """

    times: Times
    versions: dict[str, str]
    config: dict[str, Any]
    seeds: dict[str, int]
    hardware: dict[str, Any]
    models: dict[Role, ModelId]
    limit: int | None = None
    rows: dict[str, int] = field(default_factory=dict)
    chat_template_sha: dict[Role, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class TaskRun:
    """One task by several strategies; the first is what the others are compared with."""

    task: str
    strategies: tuple[StrategyRun, ...]

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        """What each strategy achieved and cost."""
        return accounts_of(self.task, self.strategies)

    @property
    def has_wall_seconds(self) -> bool:
        """Whether every strategy was timed as a whole."""
        return all(run.wall_seconds is not None for run in self.strategies)

    def named(self, strategy: str) -> StrategyRun | None:
        """The run of a strategy."""
        return next((run for run in self.strategies if run.name == strategy), None)

    def verdict(self, strategy: str = "") -> Verdict | None:
        """Does a strategy pay against the target alone? None where it did not run or nothing can be compared.

        Without a name, the first that is RSD, whatever its settings. It is about the questions that both answered.
        The prediction goes by what this strategy's answers took, and of the target's own only by their lengths.
        """
        run = self.named(strategy) if strategy else self._first_rsd()
        if run is None:
            return None
        both = _answered(run) & _answered(self.named("target"))
        load, records = Workload(), list(_records(run, both or _answered(run)))
        for record in records:
            load.add(record)
        own_answers = list(_records(self.named("target"), both)) if load.n == len(records) else []
        work = load.work(alone_of(own_answers) if own_answers else None)
        if work is None or not {"draft", "target"} <= set(load.parameters):
            return None
        own, alone = cost_of(records), cost_of(own_answers)
        return make_verdict(
            work,
            load.parameters,
            spent_tariff(own.tokens, own.times, run.paces, work),
            measured_time=own.seconds / alone.seconds if alone.seconds else None,
            measured_compute=own.total_flops / alone.total_flops if alone.total_flops else None,
        )

    def _first_rsd(self) -> StrategyRun | None:
        return next((run for run in self.strategies if _policy(run) == "rsd"), None)


@dataclass(frozen=True)
class Evaluation:
    """Everything that `rsd eval` found. `project` has the sizes of a projection, none without one."""

    tasks: tuple[TaskRun, ...]
    circumstances: Circumstances
    project: dict[Role, float] = field(default_factory=dict)

    @property
    def partial(self) -> dict[str, str]:
        """The tasks of which not all questions were asked, which makes figures incomparable, and how many were."""
        known, limit = self.circumstances.rows, self.circumstances.limit
        asked = {run.task: max(len(each.samples) for each in run.strategies) for run in self.tasks}
        return {
            task: f"{n:,} of {known[task]:,}" if task in known else f"the first {n:,}"
            for task, n in asked.items()
            if (n < known[task] if task in known else limit is not None and n >= limit)
        }


def _answered(run: StrategyRun | None) -> set[int]:
    """The questions that did not end in an error."""
    return {sample.doc_id for sample in run.samples if sample.branches} if run else set()


def _records(run: StrategyRun | None, doc_ids: Container[int]) -> Iterator[Record]:
    return records_of(sample for sample in run.samples if sample.doc_id in doc_ids) if run else iter(())


def _policy(run: StrategyRun) -> str:
    return next((record.strategy for record in records_of(run.samples)), "")


def relative_compute(accounts: Sequence[Account], project: Mapping[Role, float]) -> dict[str, float]:
    """Each strategy's compute an answered question as a multiple of the target's alone; empty where that has none.

    With sizes to project to, of the projected compute.
    """
    each = {
        account.strategy: flops_of(account.cost, project) / account.answered
        for account in accounts
        if account.answered
    }
    alone = each.get("target")
    return {strategy: flops / alone for strategy, flops in each.items()} if alone else {}


def flops_of(cost: Cost, project: Mapping[Role, float]) -> float:
    """All FLOPs of a cost, or those that models of other sizes would have needed for its tokens."""
    if not project:
        return cost.total_flops
    return sum(compute.total for compute in projected(cost.tokens, project).values())


def records_of(samples: Iterable[Sample]) -> Iterator[Record]:
    """Every record of every sample."""
    return (record for sample in samples for record in sample.records)

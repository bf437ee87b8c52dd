"""What a batch is to do, and what a row makes of it for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.answers import Problematic
from rsd_cli.decoding.strategies import check_sampling, parse
from rsd_cli.engine.sampling import Sampling
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.batch.answers import Format
    from rsd_cli.batch.rows import Fields, Row
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.decoding.trajectory import Settings
    from rsd_cli.records import Role


@dataclass(frozen=True)
class Shard:
    """Every `count`-th line, beginning with line `index`, which counts from 1."""

    index: int = 1
    count: int = 1

    def has(self, line: int) -> bool:
        """Whether a line belongs to it."""
        return (line - self.index) % self.count == 0

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Plan:
    """What a batch is to do. `max_errors` 0 means any number; `trio_threshold` is for rows of other strategies."""

    settings: Settings
    trio_threshold: float
    described: dict[str, Any]
    roles: tuple[Role, ...]
    fields: Fields
    seats: int
    samples: int
    form: Format
    shard: Shard
    ordered: bool
    retry_errors: bool
    max_errors: int
    reproducible: bool


def settings_of(row: Row, plan: Plan) -> Settings | Problematic:
    """The run's settings with the row's own, or why they can't be had."""
    own, run = row.own, plan.settings
    sampling = run.sampling or Sampling()
    temperature = sampling.temperature if own.temperature is None else own.temperature
    try:
        strategy = parse(own.strategy or run.strategy)
        _check(strategy, plan, temperature)
    except UsageError as error:
        message = f"{error.message.removeprefix('--')} {error.hint}".strip()
        return Problematic(row, "bad_value", message)
    return replace(
        run,
        strategy=str(strategy),
        threshold=_threshold(row, strategy, plan),
        target_share=run.target_share if own.threshold is None else None,  # which finds its own threshold
        max_tokens=own.max_tokens or run.max_tokens,
        system=run.system if own.system is None else own.system,
        seed=run.seed if own.seed is None else own.seed,
        sampling=replace(sampling, temperature=temperature, top_p=own.top_p or sampling.top_p),
    )


def _threshold(row: Row, strategy: Strategy, plan: Plan) -> float:
    """The row's own; the run's for the run's strategy, with any N; for another one that on its scale."""
    run, usual = plan.settings, parse(plan.settings.strategy)
    if row.own.threshold is not None:
        return row.own.threshold
    if strategy.name == usual.name:
        return run.threshold
    if strategy.kind.threshold is not None:
        return strategy.kind.threshold
    return run.threshold if usual.kind.threshold is None else plan.trio_threshold


def _check(strategy: Strategy, plan: Plan, temperature: float) -> None:
    """Refuse what this run has no roles, seats, samples or temperature for."""
    run = plan.settings.strategy
    missing = [role for role in strategy.roles if role not in plan.roles]
    if missing:
        raise UsageError(f"strategy {strategy} needs a {missing[0]}, which --strategy {run} does not load.")
    if strategy.width > plan.seats:
        raise UsageError(f"strategy {strategy} needs {strategy.width} seats, this run has {plan.seats}.")
    if plan.reproducible and strategy.width != parse(run).width:
        raise UsageError(
            f"strategy {strategy} needs {strategy.width} seats, and --reproducible has a run for each number of them."
        )
    if strategy.samples not in (1, plan.samples):
        raise UsageError(
            f"strategy {strategy} needs {strategy.samples} samples, this run takes {plan.samples}."
        )
    if plan.samples > 1 and temperature <= 0:
        raise UsageError("temperature 0 gives the same answer every time; several samples need more.")
    check_sampling(strategy, temperature)

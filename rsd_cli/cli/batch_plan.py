"""What a batch is to do, and what a row makes of it for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_cli.batch.answers import Problematic
from rsd_cli.decoding.strategies import parse
from rsd_cli.engine.llama import Sampling
from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from rsd_cli.batch.answers import Format
    from rsd_cli.batch.rows import Fields, Row
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
    """What a batch is to do. `max_errors` 0 means any number."""

    settings: Settings
    described: dict[str, Any]
    roles: tuple[Role, ...]
    fields: Fields
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
    strategy = own.strategy or run.strategy
    try:
        meant = parse(strategy)
    except UsageError as error:
        return Problematic(row, "bad_value", f"{error.message.removeprefix('--')} {error.hint}")
    missing = [role for role in meant.roles if role not in plan.roles]
    if missing:
        message = f"strategy {strategy} needs a {missing[0]}, which --strategy {run.strategy} does not load."
        return Problematic(row, "bad_value", message)
    sampling = run.sampling or Sampling()
    temperature = sampling.temperature if own.temperature is None else own.temperature
    if plan.samples > 1 and temperature <= 0:
        message = "temperature 0 gives the same answer every time; several samples need more."
        return Problematic(row, "bad_value", message)
    return replace(
        run,
        strategy=strategy,
        threshold=run.threshold if own.threshold is None else own.threshold,
        max_tokens=own.max_tokens or run.max_tokens,
        system=run.system if own.system is None else own.system,
        seed=run.seed if own.seed is None else own.seed,
        sampling=replace(sampling, temperature=temperature, top_p=own.top_p or sampling.top_p),
    )

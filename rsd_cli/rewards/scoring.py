"""Rewards of given solutions, step by step as in decoding: a new step costs its own tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_cli.rewards.rollouts import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rsd_cli.engine.jobs import Observed
    from rsd_cli.engine.seats import Engine
    from rsd_cli.rewards.families import Reader, Solution
    from rsd_cli.rewards.rollouts import Sampled


@dataclass(frozen=True)
class Scored:
    """A solution with the reward of each step; NaN where the PRM gave none (a step beyond its context, say)."""

    id: str
    solution: Solution
    rewards: tuple[float, ...]


def score(engine: Engine, reader: Reader, solutions: Iterable[tuple[str, Solution]]) -> Iterator[Scored]:
    """Score solutions, given with their names, in all seats of the engine; as they finish."""
    done: list[Scored] = []
    for _ in drive(engine, (_steps(engine, reader, name, each, done.append) for name, each in solutions)):
        yield from done
        done.clear()
    yield from done


def _steps(
    engine: Engine, reader: Reader, name: str, solution: Solution, done: Callable[[Scored], None]
) -> Sampled:
    rewards: list[float] = []
    for end in range(1, len(solution.steps) + 1):
        part = solution.up_to(end)
        job = reader.job(part)
        if len(job.context) > engine.n_ctx:
            rewards += [math.nan] * (len(solution.steps) - len(rewards))
            break
        observed: Observed = yield job
        rewards.append(reader.reward(observed, part))
    done(Scored(name, solution, tuple(rewards)))

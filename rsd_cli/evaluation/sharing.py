"""One set of drawn answers for several strategies that choose among them: the first n, with or without rewards.

The n-th answer to a question is drawn from a seed of its own, so a strategy would draw just these again. Not so where
`top_k` is 0: judged answers are watched while they are drawn, and then from fewer tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rsd_cli.evaluation.choosing import counting
from rsd_cli.evaluation.samples import Sample
from rsd_cli.records import RoleTime, Usage

if TYPE_CHECKING:
    from rsd_cli.decoding.strategies import Strategy
    from rsd_cli.engine.sampling import Sampling
    from rsd_cli.evaluation.samples import Branch
    from rsd_cli.records import Record


def can_give(giver: Strategy, taker: Strategy, sampling: Sampling) -> bool:
    """Whether all that one strategy needs is among what another one draws under the same settings."""
    both_choose = giver.choice is not None and taker.choice is not None
    judges = giver.choice == "best" and sampling.is_alike_when_watched
    fits = giver.choice == taker.choice or judges
    return both_choose and fits and giver.author == taker.author and giver.n >= taker.n


def shared(sample: Sample, name: str, taker: Strategy) -> Sample:
    """A question as the taker answers it, which is called `name`, from another strategy's sample."""
    if not sample.branches or taker.choice is None:
        return replace(sample, strategy=name, seconds=None)
    branches = tuple(_taken(branch, taker) for branch in sample.branches[: taker.n])
    chosen = counting(branches, taker.choice)
    return replace(Sample.single(name, sample.doc_id, sample.doc, sample.target, chosen), branches=branches)


def _taken(branch: Branch, taker: Strategy) -> Branch:
    record = replace(branch.record, strategy=str(taker))
    if taker.choice == "best":
        return replace(branch, record=record)
    return replace(branch, record=_unjudged(record), score=None)


def _unjudged(record: Record) -> Record:
    """An answer that no PRM has seen."""
    return replace(
        record,
        steps=tuple(replace(step, reward=None) for step in record.steps),
        usage=record.usage | {"prm": Usage()},
        flops=replace(record.flops, prm=0.0),
        timings=replace(record.timings, roles=record.timings.roles | {"prm": RoleTime()}),
    )

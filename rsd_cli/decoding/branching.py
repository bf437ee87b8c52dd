"""Strategies with several candidates for a step, written and judged side by side in lanes of one trajectory.

Candidates share the kept steps; which of them stays is decided here, how a prefix is shared by the engine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsd_cli.decoding.policies import Judge, Keep, Likelihood, Write, candidate, gate, known, rejection

if TYPE_CHECKING:
    from collections.abc import Generator

    from rsd_cli.decoding.policies import Kept, Policy, Proposal, Request
    from rsd_cli.decoding.weighting import Accepts
    from rsd_cli.records import Author, Candidate, EndedBy

EXPANSIONS = 4  # candidates of each beam: the beam width of Hugging Face's search-and-learn
Pick = Callable[[Sequence[float]], int]


def best(rewards: Sequence[float]) -> int:
    """The place of the highest reward, the first of equals; NaN is below all."""
    return max(range(len(rewards)), key=lambda i: -math.inf if math.isnan(rewards[i]) else rewards[i])


def soft(beta: float, draw: Callable[[], float]) -> Pick:
    """Soft best-of-n: a place drawn in proportion to exp(beta x reward); NaN is never drawn beside others."""

    def pick(rewards: Sequence[float]) -> int:
        highest, drawn = rewards[best(rewards)], draw()
        if math.isnan(highest):
            return 0
        weights = (0.0 if math.isnan(r) else math.exp(beta * (r - highest)) for r in rewards)
        sums = list(itertools.accumulate(weights))
        return next(i for i, total in enumerate(sums) if drawn * sums[-1] < total)

    return pick


@dataclass(frozen=True)
class Field:
    """The candidates for a step with their rewards, and the one that was picked."""

    steps: tuple[Proposal, ...]
    rewards: tuple[float, ...]
    picked: int

    @property
    def step(self) -> Proposal:
        """The picked one."""
        return self.steps[self.picked]

    @property
    def reward(self) -> float:
        """What it earned."""
        return self.rewards[self.picked]

    @property
    def others(self) -> tuple[Candidate, ...]:
        """All but the picked one."""
        pairs = zip(self.steps, self.rewards, strict=True)
        return tuple(candidate(*pair) for i, pair in enumerate(pairs) if i != self.picked)


def rsd_n(accepts: Accepts, n: int, pick: Pick) -> Policy:
    """RSD with n drafts for each step, of which one is picked before the criterion decides about it.

    What RSD is compared with in GSI (arXiv 2506.04118, there with soft best-of-n).
    """
    while True:
        steps: list[Proposal] = yield [Write("draft", lane) for lane in range(n)]
        rewards: list[float] = yield [Judge(step, lane) for lane, step in enumerate(steps)]
        drafts = Field(tuple(steps), tuple(rewards), pick(rewards))
        if ended := (yield from gate(accepts, drafts.step, drafts.reward, drafts.others)):
            return ended


def gsi(accepts: Accepts, n: int, beta: float, pick: Pick) -> Policy:
    """Guided speculative inference (arXiv 2506.04118): rewards tilted towards what the target would write.

    r~ = r + (1/beta) log(P_target / P_draft) of a draft step; of n one is drawn by exp(beta r~) and stays if r~
    passes. Else n steps of the target are judged and one is drawn by exp(beta r). Both models must have the same
    vocabulary. The paper: beta 20, r~ >= 0.5, temperature 0.7. Probabilities are those at temperature 1 here, the
    draft's over its best candidates, the target's over all.
    """
    while True:
        steps: list[Proposal] = yield [Write("draft", lane, watch=True) for lane in range(n)]
        lanes = list(enumerate(steps))
        told: list[float] = yield [
            *(Judge(step, lane) for lane, step in lanes),
            *(Likelihood(step, lane) for lane, step in lanes),
        ]
        pairs = zip(told[:n], steps, told[n:], strict=True)
        tilted = [reward + (theirs - step.logprob) / beta for reward, step, theirs in pairs]
        drafts = Field(tuple(steps), tuple(tilted), pick(tilted))
        ended: EndedBy | None
        if accepts(drafts.reward):
            ended = yield Keep(drafts.step, drafts.reward, others=drafts.others)
        else:
            ended = yield from _rewritten(drafts, n, pick)
        if ended:
            return ended


def _rewritten(drafts: Field, n: int, pick: Pick) -> Kept:
    """One of n steps of the target in place of the drafts."""
    steps: list[Proposal] = yield [Write("target", lane, watch=True) for lane in range(n)]
    rewards: list[float] = yield [Judge(step, lane) for lane, step in enumerate(steps)]
    own = Field(tuple(steps), tuple(rewards), pick(rewards))
    rejected = rejection(drafts.step, drafts.reward)
    others = (*drafts.others, *own.others)
    ended: EndedBy | None = yield Keep(own.step, known(own.reward), rejected, others=others)
    return ended


def process_best_of_n(author: Author, n: int, pick: Pick) -> Policy:
    """Of n candidates for each step the PRM's favourite stays: one model alone (paper, Table 3)."""
    while True:
        steps: list[Proposal] = yield [Write(author, lane, watch=True) for lane in range(n)]
        rewards: list[float] = yield [Judge(step, lane) for lane, step in enumerate(steps)]
        field = Field(tuple(steps), tuple(rewards), pick(rewards))
        ended: EndedBy | None = yield Keep(field.step, known(field.reward), others=field.others)
        if ended:
            return ended


@dataclass(frozen=True)
class Beam:
    """Steps that are not kept yet, with their rewards, and the lane in which the newest was written."""

    lane: int
    steps: tuple[Proposal, ...] = ()
    rewards: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """The newest step's reward; a step without one is below all."""
        return -math.inf if not self.rewards or math.isnan(self.rewards[-1]) else self.rewards[-1]

    def is_over(self, steps_left: int) -> bool:
        """Whether no step can follow."""
        return bool(self.steps) and (self.steps[-1].is_last or len(self.steps) >= steps_left)


def beam(author: Author, n: int, max_steps: int) -> Policy:
    """Step-level beam search with the PRM (paper, Table 3; Snell et al., arXiv 2408.03314): one model alone.

    Each of n beams gets `EXPANSIONS` candidates for its next step, and of all of them the n with the highest
    newest rewards stay; the first step has as many candidates as there are lanes. Steps are kept as soon as all
    beams have them, so that an answer grows before the end.
    """
    beams, kept = [Beam(0)], 0
    tried: list[list[Beam]] = []  # the candidates for each of the steps that are not kept yet
    while True:
        over = [each for each in beams if each.is_over(max_steps - kept)]
        going = [each for each in beams if each not in over]
        width = EXPANSIONS if len(beams) > 1 else n * EXPANSIONS
        grown: list[Beam] = yield from _grown(author, going, width, n * EXPANSIONS)
        tried.append(grown)
        beams = sorted([*over, *_distinct(grown)], key=lambda each: each.score, reverse=True)[:n]
        if all(each.is_over(max_steps - kept) for each in beams):
            beams = beams[:1]
        while beams[0].steps and all(each.steps[:1] == beams[0].steps[:1] for each in beams):
            step, reward, kept = beams[0].steps[0], beams[0].rewards[0], kept + 1
            is_last = step.is_last or kept >= max_steps
            others = _others(step, tried if is_last else tried[:1])
            ended: EndedBy | None = yield Keep(step, known(reward), others=others)
            if ended:
                return ended
            del tried[0]
            beams = [Beam(each.lane, each.steps[1:], each.rewards[1:]) for each in beams]


def _others(kept: Proposal, tried: Sequence[Sequence[Beam]]) -> tuple[Candidate, ...]:
    """Candidates in whose place a step stands; the answer's last step also in that of all deeper ones."""
    newest = [(each.steps[-1], each.rewards[-1]) for grown in tried for each in grown]
    return tuple(candidate(step, reward) for step, reward in newest if step is not kept)


def _grown(
    author: Author, going: Sequence[Beam], width: int, lanes: int
) -> Generator[Sequence[Request], Any, list[Beam]]:
    """Every beam with each of its `width` candidates; a beam's own lane is its first child's."""
    free = iter(sorted(set(range(lanes)) - {each.lane for each in going}))
    seeds = [
        Beam(each.lane if child == 0 else next(free), each.steps, each.rewards)
        for each in going
        for child in range(width)
    ]
    steps: list[Proposal] = yield [Write(author, each.lane, each.steps, watch=True) for each in seeds]
    pairs = list(zip(seeds, steps, strict=True))
    rewards: list[float] = yield [Judge(step, each.lane, each.steps) for each, step in pairs]
    return [
        Beam(each.lane, (*each.steps, step), (*each.rewards, reward))
        for (each, step), reward in zip(pairs, rewards, strict=True)
    ]


def _distinct(beams: Sequence[Beam]) -> list[Beam]:
    """Beams with different texts, the first of equals."""
    return list({tuple(step.text for step in beam.steps): beam for beam in reversed(beams)}.values())[::-1]
